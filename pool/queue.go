package pool

import (
	"sync"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
)

// Event says that a task has ended, or that log records wait.
type Event struct {
	Log    bool
	Handle uint64 // the caller's name for the task, from Call
	Tag    uint64
	Status Status
}

// Queue collects ends of tasks for one event loop or thread and makes a descriptor readable while
// there are any. One per loop: two loops on one descriptor steal each other's wake-ups.
type Queue struct {
	mu     sync.Mutex // guards the rest; a leaf: nothing is called under it but a write to fd
	fd     int
	events []Event
	logs   bool // a log event is among events already
	closed bool
}

// NewQueue makes an empty one.
func NewQueue() (*Queue, error) {
	fd, err := newEventfd()
	if err != nil {
		return nil, shm.Refusal("eventfd", err)
	}
	return &Queue{fd: fd}, nil
}

// FD is readable while events wait. It is closed by Close.
func (q *Queue) FD() int { return q.fd }

func (q *Queue) push(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || (e.Log && q.logs) {
		return
	}
	q.logs = q.logs || e.Log
	q.events = append(q.events, e)
	if len(q.events) == 1 {
		// Only the first event needs the write: Take empties the descriptor only when it empties the list.
		q.raise()
	}
}

// raise makes the descriptor readable, sooner or later: who waits for it has nothing else to be woken by. mu is held.
func (q *Queue) raise() {
	if signalEventfd(q.fd) == nil {
		return
	}
	guard.AfterFunc(time.Millisecond, "queue", func(*guard.Panic) {}, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.events) > 0 && !q.closed {
			q.raise()
		}
	})
}

// Take moves up to len(into) events, oldest first.
func (q *Queue) Take(into []Event) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := copy(into, q.events)
	for _, e := range into[:n] {
		if e.Log {
			q.logs = false
		}
	}
	rest := copy(q.events, q.events[n:])
	clear(q.events[rest:])
	q.events = q.events[:rest]
	if rest == 0 && !q.closed { // also when nothing was there: it may be readable still
		clearEventfd(q.fd)
	}
	return n
}

// Close drops what waits and closes the descriptor.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		q.events = nil
		_ = closeFD(q.fd)
	}
}
