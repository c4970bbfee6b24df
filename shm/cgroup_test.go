//go:build linux

package shm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	cgroupLimit = 256 << 20
	cgroupStep  = 8 << 20
)

// A real memory cgroup: allocating past its limit is a kill, and theus does not.
func TestHeapStopsBeforeTheCgroupKills(t *testing.T) {
	watch(t)
	group := newCgroup(t)
	child := start(t, "cgroup")
	group.join(t, child.cmd.Process.Pid)
	child.says("you are in")
	said, err := child.ends()
	require.NoError(t, err, "the child was ended: %s", said)

	var lines []string
	for line := range strings.Lines(said) {
		lines = append(lines, strings.TrimSpace(line))
	}
	require.Len(t, lines, 3, said)
	own, capped := "cgroup "+group.version+" "+group.name+" "+group.limitFile, 0
	for i, heap := range []struct {
		name        string
		least, most int
	}{
		// Some of the group is the child's own; hence the broad lower bounds.
		{"default", cgroupLimit * 4 / 10, cgroupLimit * 80 / 100},
		{"large heap=", cgroupLimit * 5 / 10, cgroupLimit * 95 / 100},
		{"default again", cgroupLimit * 4 / 10, cgroupLimit * 80 / 100},
	} {
		held, source, found := strings.Cut(lines[i], " bytes, then: ")
		require.True(t, found, said)
		n, err := strconv.Atoi(held)
		require.NoError(t, err)
		assert.Equal(t, own, source, heap.name)
		assert.GreaterOrEqual(t, n, heap.least, heap.name)
		assert.LessOrEqual(t, n, heap.most, heap.name)
		capped = max(capped, n)
	}
	assert.Less(t, capped, cgroupLimit)
}

// What would happen without the check. If this fails, the test above proves nothing.
func TestCgroupKillsWhoAllocatesPastItsLimit(t *testing.T) {
	watch(t)
	group := newCgroup(t)
	child := start(t, "cgroup blind")
	group.join(t, child.cmd.Process.Pid)
	child.says("you are in")
	said, err := child.ends()
	require.Error(t, err, said)
	status := child.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, status.Signaled() && status.Signal() == syscall.SIGKILL, "ended by %v: %s", err, said)
}

// childCgroup fills heaps until they are full, one after the other, from several
// goroutines that all want the last bytes.
func childCgroup(hear func() bool) {
	hear()
	for _, limit := range []uint64{0, 1 << 40, 0} {
		h := NewHeap(HeapOptions{Limit: limit})
		var (
			all  sync.WaitGroup
			mu   sync.Mutex
			held []*Segment
			full *FullError
		)
		for range 4 {
			all.Go(func() {
				for {
					s, err := h.Create(cgroupStep, "step")
					mu.Lock()
					if errors.As(err, &full) {
						mu.Unlock()
						return
					}
					held = append(held, must(s, err))
					mu.Unlock()
				}
			})
		}
		all.Wait()
		fmt.Println(h.Stats().InUse, "bytes, then:", full.Source)
		for _, s := range held {
			s.Unref()
		}
	}
}

// childCgroupBlind does what a heap without a budget would.
func childCgroupBlind(hear func() bool) {
	hear()
	fd := must(newMemfd())
	if err := resize(fd, 2*cgroupLimit); err != nil {
		panic(err)
	}
	err := allocatePages(fallocate, fd, 2*cgroupLimit, nil, func(int64) {})
	fmt.Println("survived:", err)
}

// testCgroup is a memory cgroup of cgroupLimit bytes below that of the test.
type testCgroup struct {
	version, name, dir, limitFile string
}

func newCgroup(t *testing.T) testCgroup {
	t.Helper()
	around := (&machine{root: "/"}).cgroups()
	var refused []error
	for _, g := range around {
		made := testCgroup{version: g.version, limitFile: "memory.max",
			name: filepath.Join(g.name, fmt.Sprintf("theus-shm-%d", os.Getpid()))}
		made.dir = filepath.Join(g.dir, filepath.Base(made.name))
		if g.version == "v1" {
			made.limitFile = "memory.limit_in_bytes"
		}
		if !g.own {
			continue
		}
		if err := os.Mkdir(made.dir, 0o755); err != nil {
			refused = append(refused, err)
			continue
		}
		t.Cleanup(func() { made.remove(t) })
		err := os.WriteFile(filepath.Join(made.dir, made.limitFile), []byte(strconv.Itoa(cgroupLimit)), 0o644)
		if err == nil {
			return made
		}
		refused = append(refused, err)
	}
	t.Skipf("no memory cgroup can be made here: %v", errors.Join(refused...))
	return testCgroup{}
}

func (g testCgroup) join(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644))
}

// remove waits for the kernel to notice that the group is empty.
func (g testCgroup) remove(t *testing.T) {
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		err := os.Remove(g.dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the cgroup %s stays: %v", g.name, err)
			return
		}
	}
}
