package pool

import (
	"errors"
	"fmt"
	"time"

	"github.com/theus-project/theus-go/shm"
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
	case frameLog:
		return w.onLog(f.id, d)
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
	p.mu.Lock()
	defer p.unlock()
	if protocol != Protocol {
		p.giveUp(fmt.Sprintf("the worker speaks protocol %d, this library %d: mixed versions of theus are installed", protocol, Protocol))
		return nil
	}
	w.stopTimer()
	w.ready, w.zygote.proven = true, true
	w.pid = int(pid)
	p.failures = 0
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

// endWith turns what a worker sent into the task's outcome. Segments that it wrote are adopted: the kernel proves that nobody writes
// them any more. mu is held, and released while that is done.
func (p *Pool) endWith(t *Task, w *worker, value wireValue, arrays []wireArray, o Outcome) {
	o.Value.Codec = value.codec
	o.Value.Inline = value.inline
	if value.segmentID == 0 && len(arrays) == 0 {
		p.finish(t, o)
		return
	}
	if t.ended.Load() { // cancelled meanwhile; finish has given its segments back
		return
	}
	segments := map[uint64]*shm.Segment{} // one reference each
	granted := map[uint64]bool{}
	wanted := append(segmentIDs(arrays), value.segmentID)
	for _, id := range wanted {
		if id == 0 || segments[id] != nil {
			continue
		}
		if seg := t.removeGrant(id); seg != nil {
			segments[id], granted[id] = seg, true
		} else if seg := w.known[id]; seg != nil {
			if seg.TryRef() { // it lives if the task's version or its input holds it; a worker may name any
				segments[id] = seg
			}
		}
	}
	err := p.unlocked(func() error {
		if err := p.adoptAll(segments, granted); err != nil {
			return err
		}
		return fill(&o, value, arrays, segments)
	})
	for _, seg := range segments {
		p.after(seg.Unref)
	}
	if err != nil {
		p.after(o.release)
		o = Outcome{Status: Failed, Type: "MemoryError", Text: err.Error(), Message: fmt.Sprintf("the result of %s cannot be taken over: %v", t.name, err)}
	}
	p.finish(t, o)
}

// unlocked runs f without mu, which is held before and after, also when f panics: the caller will unlock it.
func (p *Pool) unlocked(f func() error) error {
	p.mu.Unlock()
	defer p.mu.Lock()
	return f()
}

func segmentIDs(arrays []wireArray) []uint64 {
	ids := make([]uint64, len(arrays))
	for i, a := range arrays {
		ids[i] = a.segmentID
	}
	return ids
}

// adoptAll makes worker-written segments the host's, or copies of them where the proof is refused.
func (p *Pool) adoptAll(segments map[uint64]*shm.Segment, granted map[uint64]bool) error {
	for id := range granted {
		seg := segments[id]
		err := seg.Adopt()
		if err == nil {
			continue
		}
		if !errors.Is(err, shm.ErrStillWritten) && !errors.Is(err, shm.ErrNoProof) {
			return err
		}
		private, err := p.options.Heap.Copy(seg, seg.Label())
		if err != nil {
			return err
		}
		seg.Unref()
		segments[id] = private
	}
	return nil
}

// fill builds the outcome's value and arrays on the segments, each with a reference of its own.
func fill(o *Outcome, value wireValue, arrays []wireArray, segments map[uint64]*shm.Segment) error {
	if value.segmentID != 0 {
		seg := segments[value.segmentID]
		if seg == nil {
			return fmt.Errorf("it lies in segment %d, which was not granted to this task", value.segmentID)
		}
		for _, s := range value.spans {
			if s.Offset+s.Len > uint64(seg.Size()) {
				return fmt.Errorf("it reaches over the end of segment %d", value.segmentID)
			}
		}
		seg.Ref()
		o.Value.Segment, o.Value.Spans = seg, value.spans
	}
	for _, a := range arrays {
		seg := segments[a.segmentID]
		if seg == nil || !a.layout.within(a.offset, uint64(seg.Size())) {
			return fmt.Errorf("array %q lies outside of any segment that this task was given", a.key)
		}
		seg.Ref()
		o.Arrays = append(o.Arrays, &Array{Segment: seg, Offset: a.offset, Key: a.key, Layout: a.layout})
	}
	return nil
}

func (w *worker) onCancelled(id uint64) {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	if t := p.completed(w, id); t != nil && !t.ended.Load() {
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
		p.letGo(seg)
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

// log keeps a record for the host to fetch, and announces it. mu is held.
func (p *Pool) log(record LogRecord) {
	if len(p.logs) < maxLogs {
		p.logs = append(p.logs, record)
	}
	if p.logQueue != nil {
		p.logQueue.push(Event{Log: true})
	}
}
