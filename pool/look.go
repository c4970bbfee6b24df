package pool

import (
	"time"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

const (
	// instantTask: the result of a longer one is not worth polling for, one sleeps.
	instantTask = 100 * time.Microsecond
	// polling is about as long as it takes to wake two sleepers, the poller's goroutine and the caller (60-120 µs each on a
	// two-core machine): once this is over sleeping would have been as fast. A call that is the first to give its worker an array
	// is through by then.
	polling = 300 * time.Microsecond
	// fetching is how long something that a task asks for may wait for the poller to look at the sockets.
	fetching = 5 * time.Microsecond
)

// Look reports whether a task has ended. If it is likely to end right now, because its function usually is through at once
// and it is with a worker, the caller polls the sockets for a moment instead of sleeping: waking a sleeper
// costs more than a small task itself. It never waits longer than that.
func (p *Pool) Look(t *Task) bool {
	if t.Ended() {
		return true
	}
	w := p.workerToPoll(t)
	if w == nil {
		return t.Ended()
	}
	r := p.reactor
	r.attend()
	defer r.leave()
	seen := w.page.Load()
	now := time.Now()
	look := now.Add(fetching)
	for deadline := now.Add(polling); !t.Ended() && now.Before(deadline); now = time.Now() {
		// A word of memory costs less to look at than sockets, and the worker changes it when it has answered.
		word := w.page.Load()
		answered := word != seen && word&statusTaskMask != t.id
		seen = word
		switch {
		case answered && r.reading.TryLock():
			p.readFrom(w)
		case now.After(look) && r.reading.TryLock():
			p.readReady()
			look = now.Add(fetching)
		default:
			yield()
		}
	}
	return t.Ended()
}

// workerToPoll is the worker that runs the task, if that is short and a processor is left to poll on; else nil.
func (p *Pool) workerToPoll(t *Task) *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := t.worker
	if w == nil || p.closed || len(w.assigned) == 0 || w.assigned[0] != t || !p.processorLeft() {
		return nil
	}
	if !t.call.Function.usuallyInstant() {
		return nil
	}
	return w
}

// processorLeft: the work that there is leaves one to poll on, for the host or for a worker that has just become idle. mu is held.
func (p *Pool) processorLeft() bool { return len(p.queue) == 0 && p.running() < Processors }

// running counts the workers that have a task.
func (p *Pool) running() (n int) {
	for _, w := range p.workers {
		if w != nil && len(w.assigned) > 0 {
			n++
		}
	}
	return n
}

// yield lets another thread run on this processor. The kernel likes to wake a worker where its host runs, and leaves it there while
// the other processor is briefly woken now and then: two that poll then take turns of 0.2 ms, each for nothing. Where no other
// thread wants to run it costs 0.3 µs. Not through Go's scheduler, which would look for other work first.
func yield() {
	if failpoint.Fail(failpoint.PoolYield) == nil {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}
