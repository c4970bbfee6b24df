package pool

import (
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestClosingEndsAWaitForRoom(t *testing.T) {
	f := fullOfGarbage(t, 1)
	task := f.start("wait-for " + filepath.Join(t.TempDir(), "never")) // so the garbage stays
	eventually(t, "it has started", func() bool { return f.started(task) })
	began, failed := make(chan struct{}), make(chan error, 1)
	more := int64(f.heap.Stats().Limit) + 1 // for which there is no room afterwards either
	go func() {
		close(began)
		for { // attempts that end before Close begins end for want of room
			err := f.WithRoom(func() error {
				_, err := f.heap.Create(more, "more")
				return err
			})
			if !isFull(err) {
				failed <- err
				return
			}
		}
	}()
	<-began
	f.Close(0)
	require.ErrorIs(t, <-failed, ErrClosed)
}

func TestAZygoteWhoseEndSomebodyElseWasToldLeavesNoDescriptor(t *testing.T) {
	signal.Ignore(unix.SIGCHLD) // the kernel waits for all children then, and Wait is refused
	defer func() {              // Reset does not undo Ignore
		children := make(chan os.Signal, 1)
		signal.Notify(children, unix.SIGCHLD)
		signal.Stop(children)
	}()
	f := newFixture(t, 1, "zygote")
	require.Equal(t, OK, f.run("echo").Status)
	f.Close(0)
	require.NotContains(t, openFiles(), "pidfd") // at once: collecting garbage would close it as well
}

func TestClosingEndsTheWaitForATurn(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	for range MostAllocations {
		allocations <- struct{}{}
	}
	defer func() {
		for range MostAllocations {
			<-allocations
		}
	}()
	failed := make(chan error, 1)
	go func() { failed <- f.inTurn(func() error { return nil })() }()
	eventually(t, "it waits for its turn", func() bool {
		require.Empty(t, failed, "it did not wait")
		return waitsIn("(*Pool).inTurn")
	})
	f.Close(0)
	select {
	case err := <-failed:
		require.ErrorIs(t, err, ErrClosed)
	case <-time.After(20 * time.Second): // only a bug comes to that
		t.Fatal("it waits still")
	}
}

var waits = regexp.MustCompile(`^goroutine \d+ \[select[,\]]`)

// waitsIn reports whether some goroutine waits in a select of a function.
func waitsIn(function string) bool {
	for goroutine := range strings.SplitSeq(string(stacks()), "\n\n") {
		if waits.MatchString(goroutine) && strings.Contains(goroutine, function) {
			return true
		}
	}
	return false
}

// What a worker asks for while its pool ends is not begun: Close may be waiting for the others already.
func TestNothingIsBegunForAWorkerOfAPoolThatEnds(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	f.Close(0)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.False(t, f.forWorker("test", func() { panic("it was begun") }))
}
