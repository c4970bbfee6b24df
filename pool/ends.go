package pool

// How tasks end, and how that is announced.

import (
	"fmt"
)

// finish ends a task, once; later ends only give back what they carry. The end is announced when what the task held is given
// back: who sees it may allocate at once, in a heap that had no room but for this task. Freeing 24 MiB takes 2 ms.
func (p *Pool) finish(t *Task, o Outcome) {
	if t.finished {
		p.after(o.release)
		return
	}
	t.finished = true
	t.outcome = o
	delete(p.tasks, t.id)
	delete(p.holders, t)
	p.unannounced++
	defer p.after(func() { p.announce(t) }) // last, and whatever bug is met before: nobody else ends it any more
	if o.Status == OK {
		p.counts.Done++
	} else {
		p.counts.Failed++
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	call := t.call
	t.call.Input, t.call.Arrays, t.call.Source = Value{}, nil, nil
	p.after(call.release)
	p.after(t.takeHoldings())
	p.dropFunction(call.Function)
}

// announce lets everybody see that a finished task has ended. mu is not held.
func (p *Pool) announce(t *Task) {
	p.mu.Lock()
	defer p.unlock()
	if t.released {
		p.after(t.outcome.release)
	}
	t.ended.Store(true)
	if q := t.call.Queue; q != nil { // before over: who has waited for the task finds its event
		q.push(Event{Handle: t.call.Handle, Tag: t.call.Tag, Status: t.outcome.Status})
	}
	t.over.Store(1)
	close(t.done)
	p.after(t.wakeWaiting) // when mu is unlocked, which they want next
	p.unannounced--
	p.announceFreed()
	if p.drained() {
		for _, idle := range p.idlers {
			close(idle)
		}
		p.idlers = nil
	}
}

// drained: no task is queued or running, and everybody knows. mu is held.
func (p *Pool) drained() bool { return len(p.tasks) == 0 && p.unannounced == 0 }

// crash ends or repeats the task that a dead worker had started.
func (p *Pool) crash(t *Task, w *worker, reason string) {
	if t.finished {
		return
	}
	if t.call.Retries > 0 {
		t.call.Retries--
		t.again = true
		p.unassign(t)
		// Behind the others: a task that kills every worker must not keep them from running.
		p.queue = append(p.queue, t)
		return
	}
	p.finish(t, Outcome{
		Status:  Crashed,
		Message: fmt.Sprintf("worker %d (pid %d) %s while it ran %s%s", w.index, w.pid, reason, t.name, t.crashAdvice(w)),
		Task:    t.name,
		PID:     w.pid,
		Signal:  w.signal(),
		Exit:    w.exitCode(),
		Reason:  reason,
		OOM:     w.oom != nil,
		PeakRSS: w.peakRSS,
	})
}
