package pool

import "time"

const (
	// instantTask: the result of a longer one is not worth polling for, one sleeps.
	instantTask = 100 * time.Microsecond
	// polling is as long as a sleeper takes to be woken twice (55-69 µs each on a two-core machine): once this is over
	// sleeping would have been as fast.
	polling = 120 * time.Microsecond
)

// Look reports whether a task has ended. If it is likely to end right now, because its function usually is through at once
// and it is with a worker, the caller polls the sockets for a moment instead of sleeping: waking a sleeper
// costs more than a small task itself. It never waits longer than that.
func (p *Pool) Look(t *Task) bool {
	if t.ended.Load() || !p.worthPolling(t) {
		return t.ended.Load()
	}
	r := p.reactor
	r.attend()
	defer r.leave()
	for deadline := time.Now().Add(polling); !t.ended.Load() && time.Now().Before(deadline); {
		if r.reading.TryLock() {
			p.readReady()
		}
	}
	return t.ended.Load()
}

// worthPolling: the task is the one that its worker runs, is short, and a processor is left to poll on.
func (p *Pool) worthPolling(t *Task) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := t.worker
	if w == nil || p.closed || len(w.assigned) == 0 || w.assigned[0] != t || len(p.queue) > 0 || p.running() >= Processors {
		return false
	}
	return t.call.Function.usuallyInstant()
}

// running counts the workers that have a task.
func (p *Pool) running() (n int) {
	for _, w := range p.workers {
		if w != nil && len(w.assigned) > 0 {
			n++
		}
	}
	return n
}
