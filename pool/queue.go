package pool

import (
	"sync"

	"golang.org/x/sys/unix"
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
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
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
		one := [8]byte{1}
		_, _ = unix.Write(q.fd, one[:])
	}
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
	if rest == 0 && n > 0 && !q.closed {
		var count [8]byte
		_, _ = unix.Read(q.fd, count[:])
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
		_ = unix.Close(q.fd)
	}
}
