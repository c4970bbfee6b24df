package pool

// How workers end: who notices, what becomes of their tasks, and who takes their place.

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// kill ends the process now. mu is held.
func (w *worker) kill() {
	w.condemned = true
	if w.pidfd >= 0 {
		_ = unix.PidfdSendSignal(w.pidfd, unix.SIGKILL, nil, 0)
	}
}

// lost is called by the reactor when the stream has ended.
func (w *worker) lost(err error) {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	if w.eof || w.judged {
		return
	}
	w.eof = true
	p.reactor.remove(w.conn, w.token)
	w.kill() // a worker without a channel is of no use; mostly it is dead already
	w.fault = err
	if w.exited {
		p.judge(w)
		return
	}
	w.within(exitTimeout, func() { w.zygote.hung(fmt.Sprintf("no report of the end of worker %d", w.index)) })
}

// gone is called by the reactor with the zygote's report. Everything the dead
// process sent is in the socket by now.
func (w *worker) gone(pid int, status unix.WaitStatus) {
	p := w.pool
	p.mu.Lock()
	if w.judged {
		p.mu.Unlock()
		return
	}
	w.exited, w.pid, w.waitStatus = true, pid, status
	eof := w.eof
	p.mu.Unlock()
	if !eof {
		drain(w)
	}
	p.mu.Lock()
	defer p.unlock()
	p.judge(w)
}

// judge settles the tasks of a dead worker and replaces it. mu is held; called on the reactor.
func (p *Pool) judge(w *worker) {
	if w.judged {
		return
	}
	started := w.running()
	assigned := w.assigned
	w.assigned = nil
	reason := w.describeDeath()
	for i := len(assigned) - 1; i >= 0; i-- { // from the back, each to the head: their order stays
		t := assigned[i]
		switch {
		case t.ended.Load():
		case t.id == started:
			p.crash(t, w, reason)
		default:
			p.requeue(t)
		}
	}
	w.discard()
	if p.ending || p.workers[w.index] != w {
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
	if !w.zygote.failed && p.failures >= maxWorkerFailures {
		p.giveUp(fmt.Sprintf("%d workers in a row died before they were ready; the last one %s", p.failures, reason))
		return
	}
	if z := p.zygote; z != nil && z == w.zygote && z.ready && !z.failed {
		p.launchOrGiveUp(z, w.index)
	}
	p.dispatch()
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
	w.stopTimer()
	w.pool.reactor.remove(w.conn, w.token)
	w.conn.close()
	if w.pidfd >= 0 {
		_ = unix.Close(w.pidfd)
		w.pidfd = -1
	}
	w.page.Close()
	for id, seg := range w.known {
		delete(w.known, id)
		w.pool.letGo(seg)
	}
}

// awaitDeath waits until the killed process is gone. The pidfd outlives the zygote.
func (w *worker) awaitDeath(timeout time.Duration) {
	w.pool.mu.Lock()
	fd := -1
	if w.pidfd >= 0 {
		fd, _ = unix.FcntlInt(uintptr(w.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	}
	pid := w.pid
	w.pool.mu.Unlock()
	if fd < 0 {
		return
	}
	defer unix.Close(fd)
	pollDeath(fd, timeout)
	reapOrphan(pid)
}

// pollDeath waits for a pidfd to say that its process has ended.
func pollDeath(pidfd int, timeout time.Duration) {
	deadline := time.Now().Add(timeout)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return
		}
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(left.Milliseconds())+1); n > 0 || (err != nil && err != unix.EINTR) {
			return
		}
	}
}

// reapOrphan collects a worker that became our own child because its zygote died and we are PID 1 or a subreaper.
func reapOrphan(pid int) {
	if pid > 0 {
		var status unix.WaitStatus
		_, _ = unix.Wait4(pid, &status, unix.WNOHANG, nil) // ECHILD: it is not ours, as it should be
	}
}

func (w *worker) signal() int {
	if w.exited && w.waitStatus.Signaled() {
		return int(w.waitStatus.Signal())
	}
	return 0
}

func (w *worker) exitCode() int {
	if w.exited && w.waitStatus.Exited() {
		return w.waitStatus.ExitStatus()
	}
	return -1
}

func (w *worker) describeDeath() string {
	switch {
	case w.fault != nil:
		return "broke the protocol (" + w.fault.Error() + ") and was ended"
	case !w.exited:
		return "was lost with its zygote (zygote lost)"
	case w.waitStatus.Signaled():
		return "was killed by " + unix.SignalName(w.waitStatus.Signal())
	default:
		return fmt.Sprintf("exited with status %d", w.waitStatus.ExitStatus())
	}
}
