package pool

// How workers end: who notices, what becomes of their tasks, and who takes their place.

import (
	"errors"
	"fmt"
	"slices"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// kill ends the process now. One that cannot be signalled takes its zygote with it: that one's end is its own, by
// PR_SET_PDEATHSIG. mu is held.
func (w *worker) kill() {
	if err := w.signalKill(); err != nil {
		w.zygote.hung(fmt.Sprintf("worker %d cannot be ended alone: %v", w.index, err))
	}
}

// signalKill sends SIGKILL, or leaves it to onSpawned if nothing is known of the process yet.
func (w *worker) signalKill() error {
	w.condemned = true
	if w.pidfdLost {
		return errors.New("the descriptor for it was lost, this process has none left (ulimit -n)")
	}
	w.pool.watchLater() // in case it does not die of it, or SPAWNED does not come
	if w.pidfd < 0 {
		return nil
	}
	if err := pidfdKill(w.pidfd); err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: it has ended
		return fmt.Errorf("pidfd_send_signal: %w", err)
	}
	w.killed = true
	return nil
}

func pidfdKill(pidfd int) error {
	if err := failpoint.Fail(failpoint.PoolPidfdSignal); err != nil {
		return err
	}
	return unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
}

// errCutOff: the stream has ended, and the worker lives.
var errCutOff = errors.New("lost its connection to the host, because something in it closed or replaced a descriptor that was not its own,")

// lost is called by the reactor when the stream has ended.
func (w *worker) lost(err error) {
	p := w.pool
	p.mu.Lock()
	pid := w.pid
	if w.exited || w.isDead() {
		pid = 0 // the number may be another process's by now
	}
	p.mu.Unlock()
	broke := err != nil
	switch {
	case broke:
		err = streamFault(err)
	case pid != 0 && !exiting(pid):
		err = errCutOff
	}
	p.mu.Lock()
	defer p.unlock()
	if w.eof || w.judged {
		return
	}
	w.eof, w.ownEnd = true, !w.condemned
	p.reactor.remove(w.conn, w.token)
	// A worker without a channel is of no use; mostly it is dead already. If it cannot be signalled, awaitReport's deadline is left.
	_ = w.signalKill()
	switch {
	case w.fault != nil:
	case w.conn.fault != nil && !broke:
		w.fault = w.conn.fault
	default:
		w.fault = err
	}
	if w.exited {
		p.judge(w)
		return
	}
	w.awaitReport()
}

// awaitReport bounds the wait for the zygote's report of a worker that was ended. mu is held.
func (w *worker) awaitReport() {
	w.within(exitTimeout, func() {
		if w.killed && w.pidfd >= 0 && !w.isDead() {
			return // there is nothing to report yet; the watch parts from it
		}
		w.zygote.hung(fmt.Sprintf("no report of the end of worker %d", w.index))
	})
}

// errUndying: SIGKILL is pending, and the kernel does not act on it.
var errUndying = errors.New("was to be ended and is not, because the kernel keeps it (a device or a network file system does not " +
	"answer, perhaps, or its control group is frozen); another takes its place")

// partFrom goes on without a worker that cannot be ended. It is told of nothing any more, and dies when the kernel lets it. Called by
// the reactor.
func (w *worker) partFrom() {
	p := w.pool
	err := w.readRest()
	p.mu.Lock()
	defer p.unlock()
	if w.judged || w.isDead() {
		return
	}
	w.unread(err)
	p.log(LogRecord{Worker: w.index, Level: 30, Logger: "theus", Message: fmt.Sprintf("worker %d (pid %d) %v", w.index, w.pid, errUndying)})
	if w.fault == nil {
		w.fault = errUndying
	}
	p.judge(w)
}

// streamFault is what a worker did whose stream could not be read on.
func streamFault(err error) error {
	if link := (*linkError)(nil); errors.As(err, &link) {
		return err
	}
	return fmt.Errorf("broke the protocol (%w)", err)
}

// readRest reads what a worker that is dead or given up has sent, unless its stream has ended already. An error is for unread.
// Called by the reactor, without the lock.
func (w *worker) readRest() error {
	w.pool.mu.Lock()
	done := w.eof || w.judged
	w.pool.mu.Unlock()
	if done {
		return nil
	}
	return drain(w)
}

// unread notes why not all that a dead worker had sent could be read: an answer may be behind that. mu is held.
func (w *worker) unread(err error) {
	if err != nil && w.fault == nil && !w.judged {
		w.fault = streamFault(err)
	}
}

// exitReport is what EXITED carries.
type exitReport struct {
	pid     int
	status  unix.WaitStatus
	peakRSS uint64
}

// gone is called by the reactor with the zygote's report. Everything the dead
// process sent is in the socket or the ring by now.
func (w *worker) gone(report exitReport) {
	p := w.pool
	p.mu.Lock()
	if w.judged {
		p.mu.Unlock()
		return
	}
	w.exited, w.pid, w.waitStatus, w.peakRSS = true, report.pid, report.status, report.peakRSS
	groups := w.groups
	bySomeone := w.signal() == int(unix.SIGKILL) && w.fault == nil && (w.ownEnd || !w.condemned)
	p.mu.Unlock()
	if bySomeone {
		kill, known := p.oom.Claim(groups) // reads files: outside the lock
		p.mu.Lock()
		w.oom, w.notOOM = kill, known && kill == nil
		p.mu.Unlock()
	}
	err := w.readRest()
	p.mu.Lock()
	defer p.unlock()
	w.unread(err)
	p.judge(w)
}

// notSpawned is called by the reactor when the zygote could not start the worker. It may have been there for
// a moment, if the zygote could not keep watch over it, and have begun with a task.
func (w *worker) notSpawned(reason string) {
	p := w.pool
	_ = drain(w)
	p.mu.Lock()
	defer p.unlock()
	if w.judged {
		return
	}
	w.fault = &linkError{"the zygote cannot fork", errors.New(reason)}
	p.settle(w)
	w.discard()
	if p.Ending() || p.workers[w.index] != w {
		return
	}
	p.workers[w.index] = nil
	p.goOnWithout(w.zygote, w.index, w.fault)
	p.dispatch()
}

// judge settles the tasks of a dead worker and replaces it. mu is held; called on the reactor.
func (p *Pool) judge(w *worker) {
	if w.judged {
		return
	}
	reason := w.describeDeath()
	p.settle(w)
	w.discard()
	p.buried++
	if p.Ending() || p.workers[w.index] != w {
		return
	}
	p.workers[w.index] = nil
	switch {
	case w.ready:
		p.failures = 0
	case w.zygote.failed: // counted once, with the zygote
	default:
		p.failures++
	}
	if !w.ready && !w.zygote.failed && p.failures >= maxWorkerFailures && p.hasReadyWorker() {
		p.goOnWithout(w.zygote, w.index, errors.New("those that were started died before they were ready; the last one "+reason))
		p.dispatch()
		return
	}
	if !w.zygote.failed && p.failures >= maxWorkerFailures {
		p.giveUp(fmt.Sprintf("%d workers in a row died before they were ready; the last one %s", p.failures, reason))
		return
	}
	if z := p.zygote; z != nil && z == w.zygote && z.ready && !z.failed {
		p.launchOrGoOn(z, w.index)
	}
	p.dispatch()
}

func (p *Pool) hasReadyWorker() bool {
	return slices.ContainsFunc(p.workers, func(w *worker) bool { return w != nil && w.ready && !w.condemned })
}

// settle ends the task that a worker had started, and gives those behind it to others. mu is held.
func (p *Pool) settle(w *worker) {
	started := w.running()
	assigned := w.assigned
	w.assigned = nil
	reason := w.describeDeath()
	for i := len(assigned) - 1; i >= 0; i-- { // from the back, each to the head: their order stays
		t := assigned[i]
		switch {
		case t.finished:
		case t.id == started:
			p.crash(t, w, reason)
		case w.unheard() && (started == 0 || slices.ContainsFunc(assigned[i:], func(t *Task) bool { return t.id == started })):
			// Its answer may be behind what could not be read, or have gone elsewhere: it must not run twice.
			p.crash(t, w, reason)
		default:
			p.requeue(t)
		}
	}
}

// unheard: what the worker has sent may not all have come. mu is held.
func (w *worker) unheard() bool {
	return w.fault != nil && w.fault != errUndying || w.page.Load()>>statusPhase == phaseCutOff
}

// giveUp ends what waits and refuses more: no worker can be started.
func (p *Pool) giveUp(cause string) {
	err := &BrokenError{Cause: cause}
	p.broken = err
	p.cancelAll(Outcome{Status: NoWorkers, Message: err.Error()})
}

// discard gives back what the host holds of a worker. mu is held.
func (w *worker) discard() {
	w.judged = true
	defer w.page.Close() // last: it panics if the books about maps are wrong
	w.stopTimer()
	w.pool.reactor.remove(w.conn, w.token)
	w.conn.close()
	if w.pidfd >= 0 {
		_ = closeFD(w.pidfd)
		w.pidfd = -1
	}
	for id, seg := range w.known {
		delete(w.known, id)
		w.pool.letGo(seg.DoneRemote)
	}
	for id, room := range w.reserved {
		delete(w.reserved, id)
		w.pool.letGo(room.Release)
	}
}
