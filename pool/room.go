package pool

import (
	"errors"
	"sync"
	"time"

	"github.com/theus-project/theus-go/shm"
)

// Patience is how long an allocation waits for workers to let go of retired memory before it fails.
const Patience = 200 * time.Millisecond

// WithRoom allocates; when the heap is full of memory that workers are about to let go of, it waits for them a little. Not
// for the reactor, which is what hears of them, nor with mu held. ErrClosed when the pool ends before there is room.
func (p *Pool) WithRoom(allocate func() error) error {
	err := allocate()
	if !isFull(err) {
		return err
	}
	deadline := time.Now().Add(Patience)
	var asked sync.Once
	for {
		retired := p.Retired()
		err := allocate()
		switch {
		case !isFull(err):
			return err
		case p.Ending():
			return ErrClosed
		case !p.options.Heap.Retiring():
			return err
		}
		asked.Do(p.LetGo)
		select {
		case <-retired:
		case <-p.closing:
		case <-time.After(time.Until(deadline)):
			return err
		}
	}
}

func isFull(err error) bool { return errors.As(err, new(*shm.FullError)) }

// NewValue is NewValue in the pool's heap, WithRoom.
func (p *Pool) NewValue(codec uint8, spans [][]byte, label string) (v Value, err error) {
	err = p.WithRoom(func() error {
		v, err = NewValue(p.options.Heap, codec, spans, label)
		return err
	})
	return v, err
}
