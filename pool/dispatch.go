package pool

import (
	"slices"

	"github.com/theus-project/theus-go/internal/guard"
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
	if call.Input.Segment != nil || len(call.Arrays) > 0 {
		p.holders[t] = struct{}{}
	}
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

// dispatch gives queued tasks to workers: to idle ones, then, if the work is short, one or two ahead to busy ones.
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

// workerToPrefetch is the busy worker that a task is sent to ahead of time, the one with the least to do; nil: none.
func (p *Pool) workerToPrefetch(t *Task) (best *worker) {
	if t.call.Timeout > 0 {
		return nil
	}
	most := t.call.Function.ahead()
	for _, w := range p.workers {
		if w == nil || !w.ready || w.condemned || len(w.assigned) == 0 || len(w.assigned) > most || !w.assigned[0].call.Function.short() {
			continue
		}
		if best == nil || len(w.assigned) < len(best.assigned) {
			best = w
		}
	}
	return best
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
