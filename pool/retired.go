package pool

// Retired memory: workers are told of it, and who waits for room hears when they have let go.

import (
	"time"

	"github.com/theus-project/theus-go/shm"
)

// Retire tells workers that a segment is gone from the host. The engine calls it when the heap drops one.
func (p *Pool) Retire(seg *shm.Segment) {
	p.mu.Lock()
	defer p.unlock()
	for _, w := range p.workers {
		if w != nil && w.known[seg.ID()] != nil {
			w.watched.retired[seg.ID()] = struct{}{}
			w.send(frameRetire, seg.ID(), nil)
			w.works()
		}
	}
}

// Freed gives a channel that is closed when memory may next have come back: a worker lets go of a retired segment, or a task ends.
func (p *Pool) Freed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.freed == nil {
		p.freed = make(chan struct{})
	}
	return p.freed
}

// AwaitRetired waits until enough has been let go of, or timeout.
func (p *Pool) AwaitRetired(timeout time.Duration, enough func() bool) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		freed := p.Freed()
		if enough() {
			return
		}
		select {
		case <-freed:
		case <-deadline.C:
			return
		}
	}
}

// letGo notes that a worker does not map something any more, once mu, which is held, is released: the kernel may take long to free a
// large segment, and callers of the library wait for mu with Python's lock.
func (p *Pool) letGo(note func()) {
	p.after(func() {
		note()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.announceFreed()
	})
}

// announceFreed wakes who waits for memory. mu is held.
func (p *Pool) announceFreed() {
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}
