package pool

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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

func TestClosingEndsTheWaitForATurn(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	for range MostAllocations {
		allocations <- struct{}{}
	}
	failed := make(chan error, 1)
	go func() { failed <- f.inTurn(func() error { return nil })() }()
	select {
	case err := <-failed:
		t.Fatalf("it did not wait for its turn: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	f.Close(0)
	require.ErrorIs(t, <-failed, ErrClosed)
	for range MostAllocations {
		<-allocations
	}
}

// What a worker asks for while its pool ends is not begun: Close may be waiting for the others already.
func TestNothingIsBegunForAWorkerOfAPoolThatEnds(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	f.Close(0)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.False(t, f.forWorker("test", func() { panic("it was begun") }))
}
