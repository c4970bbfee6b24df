package pool

// Ending a task before it ends by itself: its time is up, or nobody wants it any more.

import (
	"fmt"
	"slices"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
)

// expire is called by the timer, which may be late: a host that was stopped (Ctrl-Z) finds timers that have run out and
// results that have come. A result that is there counts, so what the worker has sent is read first.
func (p *Pool) expire(t *Task, w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reactor.post(func() {
		if err := drain(w); err != nil {
			w.lost(err)
		}
		p.endIfRunning(t, w)
	})
}

// endIfRunning ends a task whose time is up, with its worker.
func (p *Pool) endIfRunning(t *Task, w *worker) {
	p.mu.Lock()
	defer p.unlock()
	if t.finished || t.worker != w {
		return
	}
	p.stop(w, t)
	message := fmt.Sprintf("%s ran longer than its timeout of %v", t.name, t.call.Timeout)
	if w.condemned {
		message += fmt.Sprintf("; its worker (pid %d) was ended and replaced", w.pid)
	}
	p.finish(t, Outcome{Status: TimedOut, Message: message})
}

// Cancel ends a task: drops it from the queue, or kills the worker that runs it.
func (p *Pool) Cancel(t *Task) {
	p.mu.Lock()
	defer p.unlock()
	if t.finished {
		return
	}
	switch w := t.worker; {
	case w == nil:
		if i := slices.Index(p.queue, t); i >= 0 {
			p.queue = slices.Delete(p.queue, i, i+1)
		}
	case len(w.assigned) > 0 && w.assigned[0] == t:
		p.stop(w, t)
	default:
		// It waits in the worker behind another task. If it starts all the same, next kills the worker.
		w.send(frameCancel, t.id, nil)
	}
	p.finish(t, Outcome{Status: Cancelled, Message: t.name + " was cancelled"})
}

// answerTimeout is how long a worker that was told not to begin a task has for it.
const answerTimeout = 200 * time.Millisecond

// stop ends the worker that runs t, the first of its tasks, unless it has gone on to the one behind: t's result may be there,
// unread. So the one behind is called back first. A worker looks for that after each task, before it begins the next; if its page
// still shows t afterwards, it cannot begin another. mu is held.
func (p *Pool) stop(w *worker, t *Task) {
	behind := w.assigned[1:]
	for _, b := range behind {
		w.send(frameCancel, b.id, nil) // the answer puts it back into the queue
	}
	switch running := w.running(); {
	case len(behind) == 0, running == t.id && len(w.conn.out) == 0:
		w.kill()
	case !w.began(behind):
		// It is between two tasks. A moment later it has begun the one behind, or knows that it must not.
		guard.AfterFunc(answerTimeout, "stopped task", p.options.OnPanic, func() {
			p.mu.Lock()
			defer p.unlock()
			if len(w.assigned) > 0 && w.assigned[0] == t && !w.began(w.assigned[1:]) {
				w.kill()
			}
		})
	}
}

// began: one of these is what the worker runs.
func (w *worker) began(tasks []*Task) bool {
	running := w.running()
	return slices.ContainsFunc(tasks, func(t *Task) bool { return t.id == running })
}
