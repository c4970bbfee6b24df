package pool

// The watch over workers: what no event tells.
//
// A death comes as an event, mostly: the end of the stream, or the zygote's EXITED. Four things do not. A worker may have been
// stopped, or hang in code that a task left behind, and then never takes up what it is given. It may die while neither channel can
// say so: a child of its own holds the stream open, and the zygote is stopped, perhaps before it has sent SPAWNED with the worker's
// pidfd (READY comes by the worker's own stream, and may be first). It may live on after SIGKILL, because the kernel does not
// let it go: it waits for a device or a network file system, or is frozen. And an idle worker may still map retired memory that only
// garbage of its interpreter refers to, which it would collect with its next task at the earliest.
//
// So there are rounds, some seconds apart. They are armed by events (a task was given, a task ended, memory was retired) and go on only
// while something is outstanding: an idle pool has no timer, and burns nothing. One round is little: a line of /proc per worker, read
// without the lock, and after each stretch of work one CHECK to each idle worker.
//
// What a round does is always safe: it ends a worker only if that has not begun a task, so all that it was given runs elsewhere, once. A
// worker that does not die executes nothing any more, since SIGKILL is the first thing that it would meet.

import (
	"fmt"
	"slices"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
	"golang.org/x/sys/unix"
)

const (
	watchPeriod = 5 * time.Second
	// Rounds are counted, not seconds: after a machine (or a control group) was frozen the clock has moved on, but no round has passed.
	hangRounds    = 4  // without the sign of life that is due, before a worker counts as hanging
	stoppedRounds = 2  // of being seen stopped
	deadRounds    = 2  // of being dead and unreported
	dyingRounds   = 2  // of living on after SIGKILL
	exitingRounds = 24 // the same while the kernel takes it apart, which takes long where there is much memory
)

// watched is what the watch knows of a worker. Guarded by Pool.mu.
type watched struct {
	retired   map[uint64]struct{} // segments of known that it was told to let go of, and has not
	unchecked bool                // it has worked, or was told to let go, since it last showed that it lives
	asked     int                 // CHECKs without an answer
	owed      uint64              // the sign of life that was due at the last round
	quiet     int                 // rounds in which that same one was due
	stopped   int                 // rounds in a row in which the process was seen stopped
	dead      int                 // rounds in which it was dead and nobody had said so
	dying     int                 // rounds in which it had been killed and lived
	warned    uint64              // task for which a warning was given
}

// owedAnswer is owed for a CHECK; other numbers are tasks that were given and have not begun.
const owedAnswer = ^uint64(0)

// watchLater arms the next round, unless it is. mu is held.
func (p *Pool) watchLater() {
	if p.round != nil || p.Ending() || p.broken != nil {
		return
	}
	period := p.options.WatchPeriod
	if period <= 0 {
		period = watchPeriod
	}
	p.round = guard.AfterFunc(period, "watch over workers", p.options.OnPanic, p.watch)
}

// stopWatch disarms it. mu is held.
func (p *Pool) stopWatch() {
	if p.round != nil {
		p.round.Stop()
		p.round = nil
	}
}

// watch is one round.
func (p *Pool) watch() {
	states := p.states()
	p.mu.Lock()
	defer p.unlock()
	p.round = nil
	if p.Ending() {
		return
	}
	p.lastRound = time.Now()
	outstanding := len(p.tasks) > 0
	for _, w := range p.workers {
		if w != nil && !w.judged {
			p.lookAt(w, states[w.id])
			outstanding = outstanding || w.outstanding()
		}
	}
	if outstanding {
		p.watchLater()
	}
}

// What the kernel says that a process does, of all that it may say.
const (
	stoppedLetter = "T" // by a signal
	tracedLetter  = "t" // by a debugger
)

// seen is what the kernel says of a process.
type seen struct {
	letter  string // one of the above, or another
	exiting bool
}

// states reads it of each worker, without the lock. A pid may have been given to another process
// by the time that it is read; a wrong answer would have to come twice in a row.
func (p *Pool) states() map[uint64]seen {
	p.mu.Lock()
	pids := map[uint64]int{}
	for _, w := range p.workers {
		if w != nil && w.pid > 0 {
			pids[w.id] = w.pid
		}
	}
	p.mu.Unlock()
	states := map[uint64]seen{}
	for id, pid := range pids {
		letter, flags, _ := processState(pid)
		states[id] = seen{letter, flags&pfExiting != 0}
	}
	return states
}

// lookAt is a round's look at one worker. mu is held.
func (p *Pool) lookAt(w *worker, state seen) {
	if w.isDead() || w.pidfd < 0 && !w.exited && hasEnded(state.letter) {
		if w.watched.dead++; w.watched.dead >= deadRounds {
			w.zygote.hung(fmt.Sprintf("worker %d (pid %d) is dead, and it did not say so", w.index, w.pid))
		}
		return
	}
	if w.condemned {
		limit := dyingRounds
		if state.exiting {
			limit = exitingRounds
		}
		switch w.watched.dying++; {
		case w.watched.dying < limit:
		case w.killed && w.pidfd >= 0:
			p.reactor.post(w.partFrom)
		case w.ready && w.pidfd < 0 && !w.pidfdLost: // else its start has a deadline of its own
			w.zygote.hung(fmt.Sprintf("worker %d (pid %d) is to be ended, and the zygote has not sent what for that is needed", w.index, w.pid))
		}
		return
	}
	if !w.ready { // its start has a deadline of its own
		return
	}
	if state.letter == stoppedLetter {
		w.watched.stopped++
	} else {
		w.watched.stopped = 0
	}
	if state.letter == tracedLetter { // somebody looks into it, and takes the time that it takes
		return
	}
	w.noteSign()
	switch {
	case w.watched.stopped >= stoppedRounds && !w.hasBegun():
		p.replace(w, "was stopped from outside (SIGSTOP) before it began a task")
	case w.watched.stopped >= stoppedRounds:
		p.warnOfStopped(w)
	case w.watched.quiet >= hangRounds:
		p.replace(w, "has hung since before it began a task (code that an earlier task left running, perhaps)")
	case w.watched.unchecked && len(w.assigned) == 0:
		w.ask()
	}
}

// isDead asks the kernel, which does not wait: a pidfd is readable once its process has ended. mu is held.
func (w *worker) isDead() bool {
	if w.pidfd < 0 || w.exited {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(w.pidfd), Events: unix.POLLIN}}
	n, _ := poll(fds, 0)
	return n > 0
}

// noteSign counts the rounds in which one and the same sign of life is due.
func (w *worker) noteSign() {
	owed := w.owes()
	if owed != 0 && owed == w.watched.owed {
		w.watched.quiet++
	} else {
		w.watched.quiet = 0
	}
	w.watched.owed = owed
}

// owes is the sign of life that is due: that the first task has begun, or the answer to a CHECK. A worker that
// runs a task owes none, however long that takes.
func (w *worker) owes() uint64 {
	switch {
	case w.hasBegun():
		return 0
	case len(w.assigned) > 0:
		return w.assigned[0].id
	case w.watched.asked > 0:
		return owedAnswer
	}
	return 0
}

// hasBegun tells whether the worker runs something that is still awaited of it. (Its status page may name a task whose result
// has come already.)
func (w *worker) hasBegun() bool {
	running := w.running()
	return slices.ContainsFunc(w.assigned, func(t *Task) bool { return t.id == running })
}

// outstanding: another round is needed for this worker.
func (w *worker) outstanding() bool {
	return w.watched.asked > 0 || w.watched.unchecked || w.watched.stopped > 0 || w.watched.dead > 0 || w.condemned
}

// replace ends a worker that has not begun a task; what it was given runs elsewhere. mu is held.
func (p *Pool) replace(w *worker, why string) {
	p.log(LogRecord{Worker: w.index, Level: 30, Logger: "theus", Message: fmt.Sprintf(
		"worker %d (pid %d) %s; it was ended, and another takes its place", w.index, w.pid, why)})
	w.kill()
}

// warnOfStopped says, once per task, that a task cannot go on. mu is held.
func (p *Pool) warnOfStopped(w *worker) {
	if len(w.assigned) == 0 || w.watched.warned == w.assigned[0].id {
		return
	}
	t := w.assigned[0]
	w.watched.warned = t.id
	p.log(LogRecord{Task: t.id, Worker: w.index, Level: 30, Logger: "theus", Message: fmt.Sprintf(
		"worker %d (pid %d), which runs %s, was stopped from outside (SIGSTOP): `kill -CONT %d` lets it go on; cancelling the task replaces the worker",
		w.index, w.pid, t.name, w.pid)})
}

// ask sends a CHECK: the worker answers when it has nothing to run, and if it still maps retired memory it collects garbage
// first. mu is held.
func (w *worker) ask() {
	w.watched.asked++
	w.watched.unchecked = false
	var e encoder
	var collect uint8
	if len(w.watched.retired) > 0 {
		collect = 1
	}
	e.u8(collect)
	w.send(frameCheck, 0, e.buf)
}

// onChecked takes the answer.
func (w *worker) onChecked() {
	w.pool.mu.Lock()
	defer w.pool.unlock()
	w.watched.asked = max(0, w.watched.asked-1)
	w.pool.announceFreed()
}

// works notes that the worker must show again that it lives, once it is idle. mu is held.
func (w *worker) works() {
	w.watched.unchecked = true
	w.pool.watchLater()
}

// LetGo asks the workers that still map retired memory to give up what only their garbage holds; each once until something has
// changed, or the questions to one that is busy for long would pile up.
func (p *Pool) LetGo() {
	p.mu.Lock()
	defer p.unlock()
	for _, w := range p.workers {
		if w != nil && w.ready && !w.condemned && len(w.watched.retired) > 0 && (w.watched.unchecked || w.watched.asked == 0) {
			w.ask()
			p.watchLater()
		}
	}
}

// Asking tells whether a worker with retired memory has yet to answer LetGo.
func (p *Pool) Asking() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w != nil && w.watched.asked > 0 && len(w.watched.retired) > 0 {
			return true
		}
	}
	return false
}

// LastRound is when workers were last looked at; zero: there was no reason to yet.
func (p *Pool) LastRound() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastRound
}

// Buried counts the processes that have ended, or that the kernel keeps though they were killed, and of which nothing is held any more: no descriptor, no memory.
func (p *Pool) Buried() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buried
}
