package pool

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"github.com/theus-project/theus-go/shm"
)

// Patience is how long an allocation waits for memory to come back before it fails. It leaves something of the 200 ms that
// an interrupt may take: who allocates for Python tries again, and handlers of signals run in between.
const Patience = 150 * time.Millisecond

// WithRoom allocates; when the heap is full of memory that workers are about to let go of, or that tasks hold until they end,
// it waits for them a little. Not for the reactor, which is what hears of them, nor with mu held. ErrClosed when the pool
// ends before there is room; a *BacklogError when it is worth trying again.
func (p *Pool) WithRoom(allocate func() error) error {
	return p.withRoom(allocate, p.backlog)
}

// withRetired is WithRoom for what a task of a worker asks for, which must not wait for tasks.
func (p *Pool) withRetired(allocate func() error) error {
	return p.withRoom(allocate, func() Backlog { return Backlog{} })
}

func (p *Pool) withRoom(allocate func() error, backlog func() Backlog) error {
	err := allocate()
	if !isFull(err) {
		return err
	}
	deadline := time.Now().Add(Patience)
	var asked sync.Once
	var refused error // as a BacklogError; it stays one when the tasks have ended: workers have yet to hear what they may let go of
	for {
		freed, began := p.Freed(), time.Now()
		tasks := backlog() // before the attempt: of what ends in between it finds the memory
		err := allocate()
		var full *shm.FullError
		switch {
		case !errors.As(err, &full):
			return err
		case p.Ending():
			return ErrClosed
		case tasks.makesRoom(full):
			refused = &BacklogError{full, tasks}
		case !p.options.Heap.Retiring() && !isClosed(freed):
			return err
		}
		asked.Do(p.LetGo)
		if !p.awaitFreed(freed, time.Since(began), deadline) {
			return cmp.Or(refused, err)
		}
	}
}

// awaitFreed waits until something was freed; false: that was not before the deadline. However fast tasks end, it leaves ten times as
// long between two looks as one of them has taken: that goes through the tasks, with the lock that they need to end.
func (p *Pool) awaitFreed(freed <-chan struct{}, look time.Duration, deadline time.Time) bool {
	timeout := time.NewTimer(time.Until(deadline))
	defer timeout.Stop()
	select {
	case <-freed:
	case <-p.closing:
		return true
	case <-timeout.C:
		return false
	}
	pause := time.NewTimer(10 * look)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-p.closing:
	case <-timeout.C:
	}
	return true
}

func isFull(err error) bool { return errors.As(err, new(*shm.FullError)) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// NewValue is NewValue in the pool's heap, WithRoom.
func (p *Pool) NewValue(codec uint8, spans [][]byte, label string) (v Value, err error) {
	err = p.WithRoom(func() error {
		v, err = NewValue(p.options.Heap, codec, spans, label)
		return err
	})
	return v, err
}
