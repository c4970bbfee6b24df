package pool

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// fixture is a pool of fakes.
type fixture struct {
	*Pool
	t    *testing.T
	heap *shm.Heap
}

func newFixture(t *testing.T, workers int, role string) *fixture {
	t.Helper()
	watchLeftovers(t)
	f := &fixture{t: t}
	f.heap = shm.NewHeap(shm.HeapOptions{Limit: 64 << 20, OnDrop: func(s *shm.Segment) { f.Retire(s) }})
	p, err := New(Options{
		Name: "test", Python: os.Args[0], WorkerMain: "unused", Env: append(os.Environ(), roleVariable+"="+role),
		Workers: workers, Heap: f.heap,
		OnPanic: func(p *guard.Panic) { panic(p.Error() + "\n" + p.Stack) },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Pool = p
	t.Cleanup(func() {
		pids := p.Processes()
		p.Close(0)
		f.heap.Close()
		for _, pid := range pids {
			if unix.Kill(pid, 0) == nil && !isZombie(pid) {
				t.Errorf("process %d outlived the pool", pid)
			}
		}
		eventually(t, "the heap is empty", func() bool { return f.heap.Stats().InUse == 0 })
	})
	return f
}

func isZombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

// eventually polls a condition, up to a deadline that only a bug reaches.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	if !happens(condition) {
		t.Fatalf("never happened: %s", what)
	}
}

// happens reports whether a condition came true before that deadline.
func happens(condition func() bool) bool {
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		_, _ = unix.Poll(nil, 1)
	}
	return true
}

func (f *fixture) call(target, input string) Call {
	v, err := NewValue(f.heap, CodecRaw, [][]byte{[]byte(input)}, "input")
	if err != nil {
		f.t.Fatal(err)
	}
	return Call{Target: target, Input: v, OutCodec: CodecRaw, Learn: true}
}

func (f *fixture) submit(c Call) *Task {
	f.t.Helper()
	task, err := f.Submit(c)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(task.Release)
	return task
}

func (f *fixture) start(target string) *Task { f.t.Helper(); return f.submit(f.call(target, "")) }

// end waits for a task; only a bug reaches its deadline.
func (f *fixture) end(task *Task) *Outcome {
	f.t.Helper()
	select {
	case <-task.Done():
	case <-time.After(20 * time.Second):
		f.t.Fatalf("task %s did not end", task.Name())
	}
	return task.Outcome()
}

func (f *fixture) run(target string) *Outcome { f.t.Helper(); return f.end(f.start(target)) }

func text(o *Outcome) string {
	if len(o.Value.Inline) == 0 {
		return fmt.Sprintf("(no inline value; %d %s)", o.Status, o.Message)
	}
	return string(o.Value.Inline[0])
}

// array is a frozen array of one uint64.
func (f *fixture) array(key string, value uint64) *Array {
	f.t.Helper()
	return f.arrayIn(8, key, value)
}

// arrayIn is the same at the start of a segment of a size.
func (f *fixture) arrayIn(size int64, key string, value uint64) *Array {
	f.t.Helper()
	seg, err := f.heap.Create(size, key)
	if err != nil {
		f.t.Fatal(err)
	}
	base, _ := seg.Writable()
	*(*uint64)(unsafe.Pointer(&bytesAt(base, 8)[0])) = value
	if err := seg.Freeze(); err != nil {
		f.t.Fatal(err)
	}
	return &Array{Segment: seg, Key: key, Version: 1, Layout: Layout{Descr: "<u8", Itemsize: 8, Shape: []int64{1}, Strides: []int64{8}}}
}
