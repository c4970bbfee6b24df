package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
	"golang.org/x/sys/unix"
)

// Define makes a function known; record is a function record (docs/internals.md), name is for messages.
func (p *Pool) Define(name string, record Value) *Function {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastFn++
	return &Function{id: p.lastFn, record: record, uses: 1, name: name}
}

// Forget gives up the handle of a function; once no task needs it, workers forget it.
func (p *Pool) Forget(f *Function) {
	p.mu.Lock()
	defer p.unlock()
	p.dropFunction(f)
}

func (p *Pool) dropFunction(f *Function) {
	f.uses--
	if f.uses > 0 || f.id == 0 {
		return
	}
	p.after(f.record.Release)
	for _, w := range p.workers {
		if w != nil && w.functions[f.id] {
			delete(w.functions, f.id)
			w.send(frameForget, f.id, nil)
		}
	}
}

// Submit queues a task and starts it at once if a worker is idle.
func (p *Pool) Submit(call Call) (*Task, error) {
	p.mu.Lock()
	defer p.unlock()
	if p.closed {
		p.after(call.release)
		return nil, ErrClosed
	}
	if p.broken != nil {
		p.after(call.release)
		return nil, p.broken
	}
	if call.Function == nil {
		call.Function = p.target(call.Target)
	}
	if call.Function.uses == 0 {
		p.after(call.release)
		return nil, ErrReleased
	}
	p.start()
	call.Function.uses++
	p.lastTask++
	if call.RNGKey == 0 {
		call.RNGKey = p.lastTask
	}
	t := &Task{
		id:   p.lastTask,
		call: call,
		name: call.Target,
		pool: p,
		done: make(chan struct{}),
	}
	if t.name == "" {
		t.name = call.Function.name
	}
	p.tasks[t.id] = t
	p.queue = append(p.queue, t)
	p.dispatch()
	return t, nil
}

// target is the record of a function that is named, not shipped; it has id 0 on the wire.
func (p *Pool) target(name string) *Function {
	f := p.targets[name]
	if f == nil {
		f = &Function{name: name, uses: 1}
		p.targets[name] = f
	}
	return f
}

func (c *Call) release() {
	c.Input.Release()
	for _, a := range c.Arrays {
		a.Unref()
	}
	if c.Source != nil {
		c.Source.Release()
	}
}

// dispatch gives queued tasks to workers: to idle ones, then, if the work is short, one ahead to busy ones.
func (p *Pool) dispatch() {
	for len(p.queue) > 0 {
		w := p.idleWorker()
		if w == nil {
			w = p.workerToPrefetch(p.queue[0])
		}
		if w == nil {
			return
		}
		t := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.give(t, w)
	}
}

func (p *Pool) idleWorker() *worker {
	for _, w := range p.workers {
		if w != nil && w.ready && !w.condemned && len(w.assigned) == 0 {
			return w
		}
	}
	return nil
}

func (p *Pool) workerToPrefetch(t *Task) *worker {
	if !t.call.Function.short() || t.call.Timeout > 0 {
		return nil
	}
	for _, w := range p.workers {
		if w != nil && w.ready && !w.condemned && len(w.assigned) == 1 && w.assigned[0].call.Function.short() {
			return w
		}
	}
	return nil
}

// give sends a task to a worker, preceded by its function if that is new to the worker.
func (p *Pool) give(t *Task, w *worker) {
	t.worker = w
	w.assigned = append(w.assigned, t)
	p.watchLater()
	if len(w.assigned) == 1 {
		p.begin(t, w)
	}
	f := t.call.Function
	if f.id != 0 && !w.functions[f.id] {
		w.functions[f.id] = true
		w.sendFunction(f)
	}
	w.sendTask(t)
}

// begin starts the clock of a task's running time.
func (p *Pool) begin(t *Task, w *worker) {
	if t.call.Timeout > 0 && !t.finished {
		t.timer = guard.AfterFunc(t.call.Timeout, "task timeout", p.options.OnPanic, func() { p.expire(t, w) })
	}
}

// expire is called by the timer, which may be late: a host that was stopped (Ctrl-Z) finds timers that have run out and
// results that have come. A result that is there counts, so the worker's socket is read first.
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

// stop ends the worker that runs t, the first of its tasks, unless it has gone on to the one behind: t's result may be in the socket,
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
	if q := t.call.Queue; q != nil { // before done: who has waited for the task finds its event
		q.push(Event{Handle: t.call.Handle, Tag: t.call.Tag, Status: t.outcome.Status})
	}
	close(t.done)
	p.unannounced--
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

func (t *Task) crashAdvice(w *worker) string {
	if w.fault != nil { // the signal was ours
		return ""
	}
	if w.oom != nil {
		// Without its size: the kernel may take back the memory of a process that it ends before it looks how much that was.
		return "; have a task take less memory, run fewer at once (workers=), or raise the limit"
	}
	where := w.whereItFaulted()
	switch w.signal() {
	case int(unix.SIGABRT), int(unix.SIGFPE), int(unix.SIGILL):
		return where
	case int(unix.SIGSEGV), int(unix.SIGBUS):
		if len(t.read) == 0 {
			return "; native code did that, or ran out of stack" + where
		}
		keys := make([]string, 0, len(t.read))
		for k := range t.read {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		return fmt.Sprintf("; it had read the shared array(s) %q, which are read-only: if native code wrote to one, give it a private writable view, ctx.heavy.cow(%q)%s", keys, keys[0], where)
	case int(unix.SIGKILL):
		if w.notOOM {
			return "; somebody sent that (kill -9, or what limits this job): the kernel's count says that memory had not run out"
		}
		return "; SIGKILL comes from kill -9 or from the kernel when memory runs out (see dmesg, or memory.events of the cgroup)"
	}
	return ""
}

// requeue puts a task that did not run back at the head of the queue.
func (p *Pool) requeue(t *Task) {
	p.unassign(t)
	p.queue = slices.Insert(p.queue, 0, t)
}

// unassign takes from a task what it was given by its worker, or for it.
func (p *Pool) unassign(t *Task) {
	t.worker = nil
	t.read = nil
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	p.after(t.takeHoldings())
}

// completed takes a task off its worker and starts the clock of the one behind it. What the task still has to wait for,
// until its result is taken over, is not running time, and its timeout or cancellation must not hit what the worker does next.
func (p *Pool) completed(w *worker, id uint64) *Task {
	i := slices.IndexFunc(w.assigned, func(t *Task) bool { return t.id == id })
	if i < 0 {
		return nil
	}
	t := w.assigned[i]
	w.assigned = slices.Delete(w.assigned, i, i+1)
	w.done++
	w.works()
	t.worker = nil
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	if i == 0 && len(w.assigned) > 0 {
		p.next(w)
	}
	return t
}

// next is called when a worker turns to the task that was sent ahead.
func (p *Pool) next(w *worker) {
	t := w.assigned[0]
	if !t.finished {
		p.begin(t, w)
		return
	}
	// It was cancelled behind another. The worker was told; if it had begun by then it answers late or never, and is killed.
	guard.AfterFunc(answerTimeout, "cancelled task", p.options.OnPanic, func() {
		p.mu.Lock()
		defer p.unlock()
		if len(w.assigned) > 0 && w.assigned[0] == t {
			p.stop(w, t)
		}
	})
}
