package pool

import (
	"fmt"
	"time"
)

// received handles one frame of a worker, on the reactor.
func (w *worker) received(f *frame) error {
	closeAll(f.fds) // workers send none
	d := &decoder{buf: f.payload}
	switch f.kind {
	case frameReady:
		return w.onReady(d)
	case frameResult:
		return w.onResult(f.id, d)
	case frameFailed:
		return w.onFailed(f.id, d)
	case frameCancelled:
		w.onCancelled(f.id)
	case frameFetch:
		return w.onFetch(f.id, d)
	case frameAlloc:
		return w.onAlloc(f.id, d)
	case frameRetired:
		w.onRetired(f.id)
	case frameChecked:
		w.onChecked()
	case frameLog:
		return w.onLog(f.id, d)
	case frameWake: // for what is in the ring
	default:
		return fmt.Errorf("worker %d sent a frame of unknown type %d", w.index, f.kind)
	}
	return d.end()
}

func (w *worker) onReady(d *decoder) error {
	protocol, pid := d.u32(), d.u32()
	if err := d.end(); err != nil {
		return err
	}
	p := w.pool
	groups := p.oom.Watch(int(pid)) // reads files: outside the lock
	p.mu.Lock()
	defer p.unlock()
	w.groups = groups
	if protocol != Protocol {
		p.giveUp(fmt.Sprintf("the worker speaks protocol %d, this library %d: mixed versions of theus are installed", protocol, Protocol))
		return nil
	}
	w.stopTimer()
	w.ready, w.zygote.proven = true, true
	w.pid = int(pid)
	p.failures, p.lacking[w.index] = 0, 0
	p.dispatch()
	return nil
}

func (w *worker) onResult(id uint64, d *decoder) error {
	running := time.Duration(d.u64())
	value := d.value()
	arrays := make([]wireArray, 0, 4)
	for range d.u16() {
		arrays = append(arrays, d.array())
	}
	if err := d.end(); err != nil {
		return fmt.Errorf("result of task %d: %w", id, err)
	}
	w.answered(id, running, value, arrays, Outcome{Status: OK})
	return nil
}

func (w *worker) onFailed(id uint64, d *decoder) error {
	running := time.Duration(d.u64())
	o := Outcome{Status: Failed, Type: d.str(), Text: d.str(), Traceback: d.str()}
	value := d.value()
	if err := d.end(); err != nil {
		return fmt.Errorf("failure of task %d: %w", id, err)
	}
	w.answered(id, running, value, nil, o)
	return nil
}

// answered ends a task with what its worker sent, and gives the worker more to do.
func (w *worker) answered(id uint64, running time.Duration, value wireValue, arrays []wireArray, o Outcome) {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	t := p.completed(w, id)
	if t == nil {
		return
	}
	t.call.Function.ran(running)
	if o.Status == Failed {
		o.Message = fmt.Sprintf("%s raised %s: %s", t.name, o.Type, o.Text)
	}
	p.endWith(t, w, value, arrays, o)
	p.dispatch()
}

func (w *worker) onCancelled(id uint64) {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	if t := p.completed(w, id); t != nil && !t.finished {
		// Nobody cancelled it (a bug in the worker): it has not run, so it may run elsewhere.
		p.requeue(t)
	}
	p.dispatch()
}

func (w *worker) onRetired(id uint64) {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	if seg := w.known[id]; seg != nil {
		delete(w.known, id)
		delete(w.watched.retired, id)
		p.letGo(seg.DoneRemote)
	}
	if room := w.reserved[id]; room != nil {
		delete(w.reserved, id)
		p.letGo(room.Release)
	}
	if len(w.assigned) == 0 && len(w.watched.retired) == 0 {
		w.watched.unchecked = false // it lives, and has let go of everything
	}
}

func (w *worker) onLog(id uint64, d *decoder) error {
	record := LogRecord{Task: id, Worker: w.index, Level: d.u32(), Logger: d.str(), Message: d.str()}
	if err := d.end(); err != nil {
		return err
	}
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log(record)
	return nil
}
