package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
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
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	t := p.completed(w, id)
	if t == nil {
		return nil
	}
	t.call.Function.ran(running)
	p.endWith(t, w, value, arrays, Outcome{Status: OK})
	p.dispatch()
	return nil
}

func (w *worker) onFailed(id uint64, d *decoder) error {
	running := time.Duration(d.u64())
	o := Outcome{Status: Failed, Type: d.str(), Text: d.str(), Traceback: d.str()}
	value := d.value()
	if err := d.end(); err != nil {
		return fmt.Errorf("failure of task %d: %w", id, err)
	}
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	t := p.completed(w, id)
	if t == nil {
		return nil
	}
	t.call.Function.ran(running)
	o.Message = fmt.Sprintf("%s raised %s: %s", t.name, o.Type, o.Text)
	p.endWith(t, w, value, nil, o)
	p.dispatch()
	return nil
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

// kinds of FETCH and statuses of FETCHED
const (
	fetchHeavy    = 0
	fetchSegment  = 1
	fetchState    = 2
	fetchFunction = 3
	fetchKeys     = 4

	fetchedHere        = 0
	fetchedAbsent      = 1
	fetchedUnpublished = 2
	fetchedError       = 3
)

func (w *worker) onFetch(request uint64, d *decoder) error {
	id, kind, key, argument := d.u64(), d.u8(), d.str(), d.u64()
	if err := d.end(); err != nil {
		return err
	}
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	t := p.tasks[id]
	if t == nil || t.worker != w {
		w.answerError(request, "this task has ended")
		return nil
	}
	switch kind {
	case fetchHeavy:
		w.fetchHeavy(request, t, key)
	case fetchSegment:
		w.fetchSegment(request, t, argument)
	case fetchState:
		w.fetchState(request, t, key)
	case fetchFunction:
		w.fetchFunction(request, t, argument)
	case fetchKeys:
		w.fetchKeys(request, t)
	default:
		return fmt.Errorf("worker %d asked for something of unknown kind %d", w.index, kind)
	}
	return nil
}

func (w *worker) answerError(request uint64, text string) {
	var e encoder
	e.u8(fetchedError)
	e.str(text)
	w.send(frameFetched, request, e.buf)
}

func (w *worker) fetchHeavy(request uint64, t *Task, key string) {
	var e encoder
	if t.call.Source == nil {
		w.answerError(request, "this task reads no version of the state")
		return
	}
	a, presence := t.call.Source.Heavy(key)
	switch presence {
	case Present:
		t.call.Function.learn(key)
		t.reads(key)
		w.answerArray(request, a)
		w.pool.after(a.Unref)
		return
	case Unpublished:
		e.u8(fetchedUnpublished)
	case Absent:
		e.u8(fetchedAbsent)
		names, _ := json.Marshal(t.call.Source.Nearest(key))
		e.str(string(names))
	}
	w.send(frameFetched, request, e.buf)
}

// answerArray sends an array always with its descriptor: the worker asked because it has none.
func (w *worker) answerArray(request uint64, a *Array) {
	fd, err := a.Segment.ReaderFD()
	if err != nil {
		w.answerError(request, err.Error())
		return
	}
	w.note(a.Segment)
	var e encoder
	e.u8(fetchedHere)
	e.array(a, true, false)
	w.send(frameFetched, request, e.buf, fd)
}

func (w *worker) fetchSegment(request uint64, t *Task, id uint64) {
	seg := w.known[id]
	for _, a := range t.call.Arrays {
		if a.Segment.ID() == id {
			seg = a.Segment
		}
	}
	if seg == nil {
		w.answerError(request, fmt.Sprintf("segment %d is gone: its array was replaced and nothing pins it", id))
		return
	}
	// The whole segment as bytes; the worker knows what lies in it.
	a := &Array{Segment: seg, Layout: Layout{Descr: "|u1", Itemsize: 1, Shape: []int64{seg.Size()}, Strides: []int64{1}}}
	w.answerArray(request, a)
}

func (w *worker) fetchFunction(request uint64, t *Task, id uint64) {
	f := t.call.Function
	if f.id != id {
		w.answerError(request, fmt.Sprintf("function %d is not this task's", id))
		return
	}
	fds, err := w.valueFDs(&f.record)
	if err != nil {
		w.answerError(request, err.Error())
		return
	}
	w.functions[f.id] = true
	var e encoder
	e.u8(fetchedHere)
	e.value(&f.record)
	w.send(frameFetched, request, e.buf, fds...)
}

func (w *worker) fetchState(request uint64, t *Task, path string) {
	w.answerValue(request, t, func(source Source) (Value, error) {
		data, err := source.Export(path)
		if err != nil {
			return Value{}, err
		}
		return NewValue(w.pool.options.Heap, CodecState, [][]byte{data}, "state for a worker")
	})
}

func (w *worker) fetchKeys(request uint64, t *Task) {
	w.answerValue(request, t, func(source Source) (Value, error) {
		names, err := json.Marshal(source.Keys())
		if err != nil {
			return Value{}, err
		}
		return NewValue(w.pool.options.Heap, CodecJSON, [][]byte{names}, "keys for a worker")
	})
}

// answerValue makes a value of the task's version outside the lock, since it may be large, and sends it.
func (w *worker) answerValue(request uint64, t *Task, of func(Source) (Value, error)) {
	source := t.call.Source
	if source == nil {
		w.answerError(request, "this task reads no version of the state")
		return
	}
	p := w.pool
	p.spawn("state for a worker", func() {
		value, err := of(source)
		p.mu.Lock()
		defer p.unlock()
		p.after(value.Release)
		if w.judged {
			return
		}
		var fds []int
		if err == nil {
			fds, err = w.valueFDs(&value)
		}
		if err != nil {
			w.answerError(request, err.Error())
			return
		}
		var e encoder
		e.u8(fetchedHere)
		e.value(&value)
		w.send(frameFetched, request, e.buf, fds...)
	})
}

// onAlloc grants a segment to write to. Reserving pages can take long, so it happens off the reactor.
func (w *worker) onAlloc(request uint64, d *decoder) error {
	id, size, label := d.u64(), d.u64(), d.str()
	if err := d.end(); err != nil {
		return err
	}
	p := w.pool
	p.spawn("segment for a worker", func() {
		if size > 1<<62 {
			size = 1 << 62 // refused by the budget, with its message
		}
		seg, writer, err := p.options.Heap.Grant(int64(size), label)
		p.mu.Lock()
		defer p.unlock()
		t := p.tasks[id]
		if err == nil && (w.judged || t == nil || t.worker != w) {
			_ = unix.Close(writer)
			p.after(seg.Unref)
			err = errors.New("this task has ended")
		}
		var e encoder
		if err != nil {
			e.u8(fetchedError)
			e.str(allocError(err))
			w.send(frameGranted, request, e.buf)
			return
		}
		if t.grants == nil {
			t.grants = map[uint64]*shm.Segment{}
		}
		t.grants[seg.ID()] = seg
		w.note(seg)
		e.u8(fetchedHere)
		e.u64(seg.ID())
		e.u64(uint64(seg.Size()))
		w.send(frameGranted, request, e.buf, writer)
	})
	return nil
}

// allocError is the JSON that a worker turns into HeapFull or OSError.
func allocError(err error) string {
	var full *shm.FullError
	fields := map[string]any{"message": err.Error()}
	if errors.As(err, &full) {
		fields["full"] = full
	}
	text, _ := json.Marshal(fields)
	return string(text)
}
