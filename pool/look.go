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
	// looks at a ring take about a microsecond; then others are let run.
	looks = 50
)

// Look reports whether a task has ended. If it is likely to end right now, because its function usually is through at once
// and it is with a worker, the caller looks at that worker's ring for a moment instead of sleeping: waking a sleeper
// costs more than a small task itself. What it finds it handles, and waits for who handles something just then.
func (p *Pool) Look(t *Task) bool {
	if t.Ended() {
		return true
	}
	if w := p.workerToPoll(t); w != nil {
		p.poll(t, w)
	}
	return t.Ended()
}

// poll reads what the worker sends until the task has ended, or not within a moment. What others send the reactor reads.
func (p *Pool) poll(t *Task, w *worker) {
	defer p.leave(w)
	for deadline := time.Now().Add(polling); !t.Ended() && time.Now().Before(deadline); {
		if w.soon() && p.reactor.reading.TryLock() {
			p.readFrom(w)
			continue
		}
		yield()
	}
}

// soon looks for something from the worker for about a microsecond.
func (w *worker) soon() bool {
	for range looks {
		if w.comes() {
			return true
		}
	}
	return false
}

// comes: there is something to read. A frame too long for the ring comes by the socket, which the reactor is woken for; who looks is
// mostly there before it.
func (w *worker) comes() bool { return w.page.Comes(w.conn.received.Load()) }

// workerToPoll is the worker that runs the task, if that is short and a processor is left to poll on; else nil. The worker is told
// that somebody looks: leave is to follow.
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
	w.look(true)
	return w
}

// look counts who looks at the worker's ring; the worker is told whether anybody does. mu is held.
func (w *worker) look(begins bool) {
	if begins {
		w.lookers++
	} else {
		w.lookers--
	}
	w.page.Look(w.lookers > 0)
}

// leave is called by who looks no more. What the worker has put without having been told so is read now.
func (p *Pool) leave(w *worker) {
	p.mu.Lock()
	w.look(false)
	p.mu.Unlock()
	if w.page.Pending() {
		p.reactor.reading.Lock()
		p.readFrom(w)
	}
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
