package pool

// Waiting for processes to be gone, by what there is of each: a pidfd, or only its number.

import (
	"errors"
	"slices"
	"time"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// awaitDeath waits until the killed process is gone. The pidfd outlives the zygote; it is taken from the
// worker, which the reactor may settle, and its descriptors close, at any time. A worker without one dies with its zygote.
func (w *worker) awaitDeath(timeout time.Duration) {
	w.pool.mu.Lock()
	fd, pid := w.pidfd, w.pid
	w.pidfd = -1
	exited := w.exited
	w.pool.mu.Unlock()
	switch {
	case fd >= 0:
		defer func() { _ = closeFD(fd) }()
		pollDeath(fd, timeout)
		reapOrphan(pid)
	case pid > 0 && !exited:
		pollPid(pid, timeout)
	}
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
		if n, err := poll(fds, left); n > 0 || err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOMEM) {
			return
		}
	}
}

// poll waits at least as long as it is told to; 0: not at all.
func poll(fds []unix.PollFd, timeout time.Duration) (int, error) {
	if err := failpoint.Fail(failpoint.PoolPoll); err != nil {
		return 0, err
	}
	wait := 0
	if timeout > 0 {
		wait = int(timeout.Milliseconds()) + 1
	}
	return unix.Poll(fds, wait)
}

// pollPid looks again and again whether a process is gone, since no descriptor tells.
func pollPid(pid int, timeout time.Duration) {
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); {
		reapOrphan(pid)
		if ended(pid) {
			return
		}
		_, _ = poll(nil, time.Millisecond)
	}
}

// reapOrphan collects a worker that became our own child because its zygote died and we are PID 1 or a subreaper.
func reapOrphan(pid int) {
	if pid > 0 {
		_, _ = wait(pid) // ECHILD: it is not ours, as it should be
	}
}

// awaitDeaths waits until a killed zygote and its workers are gone.
func (z *zygote) awaitDeaths(workers []*worker, timeout time.Duration) {
	deadline := time.Now().Add(timeout)
	z.awaitDeath(timeout) // first: a worker that it did not reap is ours to reap only once it is gone, if we are PID 1 or a subreaper
	z.pool.mu.Lock()
	unreported := slices.ContainsFunc(workers, func(w *worker) bool { return w != nil && w.zygote == z && w.pid == 0 })
	z.pool.mu.Unlock()
	for _, w := range workers {
		if w != nil {
			w.awaitDeath(time.Until(deadline))
		}
	}
	if unreported {
		reapGroup(z.pid, time.Until(deadline))
	}
}

// reapGroup collects what a dead zygote has forked and told nobody of. Such a worker ends when it finds its parent gone, and if we are
// PID 1 or a subreaper it is a child of ours by then, whose number nobody knows. But it is in the zygote's process group, and as
// long as it is, nobody else gets the number of that.
func reapGroup(group int, timeout time.Duration) {
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); {
		pid, err := wait(-group)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // ECHILD: none is ours, as it should be, or none is left
		}
		if pid == 0 {
			_, _ = poll(nil, time.Millisecond)
		}
	}
}

// wait collects a child if it has ended; 0: none has. A negative pid means any of a process group.
func wait(pid int) (int, error) {
	var status unix.WaitStatus
	collected, err := unix.Wait4(pid, &status, unix.WNOHANG, nil)
	if said := failpoint.Fail(failpoint.PoolWait); said != nil {
		return 0, said
	}
	return collected, err
}
