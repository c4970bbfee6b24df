package pool

// How a pool ends: after its tasks, before them, or poisoned.

import (
	"slices"
	"time"
)

// Drain waits until no task is queued or running, or until timeout (negative: for ever). It reports whether none is.
func (p *Pool) Drain(timeout time.Duration) bool {
	p.mu.Lock()
	if p.drained() {
		p.mu.Unlock()
		return true
	}
	if timeout == 0 {
		p.mu.Unlock()
		return false
	}
	idle := make(chan struct{})
	p.idlers = append(p.idlers, idle)
	p.mu.Unlock()
	if timeout < 0 {
		<-idle
		return true
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-idle:
		return true
	case <-timer.C:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.idlers = slices.DeleteFunc(p.idlers, func(c chan struct{}) bool { return c == idle })
		return false
	}
}

// Close cancels what is left after grace, kills the processes and waits until the kernel says that they are gone. Of several
// callers the one with the least patience decides when; all return when it is done.
func (p *Pool) Close(grace time.Duration) {
	p.mu.Lock()
	p.closed = true // no new tasks
	p.mu.Unlock()
	if grace != 0 {
		p.Drain(grace)
	}
	p.mu.Lock()
	first := !p.Ending()
	if first {
		close(p.closing)
	}
	p.stopWatch()
	p.mu.Unlock()
	if first {
		defer close(p.ended)
		p.end()
	} else {
		<-p.ended
	}
}

// end is the part of Close that happens once.
func (p *Pool) end() {
	p.giveUpLocating()
	p.mu.Lock()
	p.cancelAll(Outcome{Status: Cancelled, Message: "the engine was closed"})
	z, workers := p.zygote, p.workers
	p.zygote, p.workers = nil, make([]*worker, len(workers))
	for _, w := range workers {
		if w != nil {
			w.kill()
		}
	}
	if z != nil {
		z.kill()
	}
	defer p.bury(z, workers) // deferred: a bug in what was put off does not keep the processes
	p.unlock()               // who waits for a task hears now that it was cancelled
}

// bury waits until the killed processes are gone, and gives back what the pool holds.
func (p *Pool) bury(z *zygote, workers []*worker) {
	if z != nil { // else there are no workers, or those who replace it wait for them
		z.awaitDeaths(workers, closeTimeout)
	}
	p.background.Wait()
	p.stopReactor()
	// A caller of Cancel, say, may be giving back still what its task held, and announce the end then. Only a bug reaches the deadline.
	p.Drain(closeTimeout)
	p.giveBack(z, workers)
}

// giveBack lets go of what the pool holds, once nobody runs any more. All is deferred: a bug in one does not keep the others.
func (p *Pool) giveBack(z *zygote, workers []*worker) {
	p.reactor.reading.Lock() // a caller in Look may read still
	defer p.reactor.reading.Unlock()
	p.mu.Lock()
	defer p.unlock()
	defer p.reactor.close()
	if z != nil {
		defer z.discard()
	}
	for _, w := range workers {
		if w != nil {
			defer w.discard()
		}
	}
	for _, f := range p.targets {
		p.after(f.record.Release)
	}
	p.logs = heldLogs{}
}

func (p *Pool) stopReactor() {
	p.mu.Lock()
	p.reactor.stopped = true
	running := p.started
	p.reactor.kick()
	p.mu.Unlock()
	if running {
		<-p.reactor.done
	}
}

// Fail ends every task and refuses new ones: a bug was caught, nothing can be trusted to go on.
func (p *Pool) Fail(cause error) {
	p.mu.Lock()
	defer p.unlock()
	p.broken = cause
	p.cancelAll(Outcome{Status: Poisoned, Message: cause.Error()})
}

func (p *Pool) cancelAll(o Outcome) {
	for _, t := range p.tasks {
		p.finish(t, o)
	}
	p.queue = nil
}
