package engine

import (
	"sync"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
)

// keepUnused is how long the heap keeps memory for reuse that nobody needs.
const keepUnused = time.Second

// trimmer gives back what the heap has kept for reuse and did not need.
type trimmer struct {
	mu     sync.Mutex  // guards the rest; held for a moment, with locks of the pool and of the heap
	timer  *time.Timer // nil: there is nothing to give back
	closed bool
}

// trimLater is called by the heap when it keeps something.
func (e *Engine) trimLater() {
	t := &e.trimmer
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil || t.closed {
		return
	}
	t.timer = guard.AfterFunc(keepUnused, "trimming", e.Poison, func() {
		t.mu.Lock()
		t.timer = nil
		t.mu.Unlock()
		if e.heap.Trim(keepUnused) {
			e.trimLater()
		}
	})
}

// stopTrimming gives everything back; nothing is kept from now on.
func (e *Engine) stopTrimming() {
	t := &e.trimmer
	t.mu.Lock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	e.heap.Close()
}
