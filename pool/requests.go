package pool

// What a worker asks of the host while it runs a task: arrays, state, code, and segments to write to.

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/theus-project/theus-go/shm"
)

// kinds of FETCH and statuses of FETCHED
const (
	fetchHeavy    = 0
	fetchSegment  = 1
	fetchState    = 2
	fetchFunction = 3
	fetchKeys     = 4
	fetchPrivate  = 5

	fetchedHere        = 0
	fetchedAbsent      = 1
	fetchedUnpublished = 2
	fetchedError       = 3
	fetchedFull        = 4
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
	case fetchPrivate:
		w.fetchPrivate(request, t, argument)
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
		t.pin(a)
		w.answerHeavy(request, a)
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

// answerHeavy sends an array, without its descriptor if it lies in an arena that the worker has.
func (w *worker) answerHeavy(request uint64, a *Array) {
	if w.known[a.Segment.ID()] == nil {
		w.answerArray(request, a)
		return
	}
	var e encoder
	e.u8(fetchedHere)
	e.array(a, false, arrayOfKey)
	w.send(frameFetched, request, e.buf)
}

// answerArray sends an array always with its descriptor: the worker asked because it has none.
func (w *worker) answerArray(request uint64, a *Array) {
	fd, err := a.open()
	if err != nil {
		w.answerError(request, err.Error())
		return
	}
	w.note(a.Segment)
	var e encoder
	e.u8(fetchedHere)
	e.array(a, true, arrayOfKey)
	w.send(frameFetched, request, e.buf, fd)
}

func (w *worker) fetchSegment(request uint64, t *Task, id uint64) {
	for _, a := range t.call.Arrays {
		if a.Output && a.Segment.ID() == id {
			w.answerArray(request, a)
			return
		}
	}
	if seg := w.findSegment(t, id); seg != nil {
		w.answerArray(request, whole(seg))
		return
	}
	w.answerGone(request, id)
}

// fetchPrivate answers with a segment that the worker will map privately. What it may write there counts in the
// budget until it has said RETIRED of the reservation. Making room can take a moment, so it happens off the reactor.
func (w *worker) fetchPrivate(request uint64, t *Task, id uint64) {
	seg := w.findSegment(t, id)
	if seg == nil || !seg.TryRef() {
		w.answerGone(request, id)
		return
	}
	p := w.pool
	begun := p.forWorker("private memory for a worker", func() {
		var room *shm.Reservation
		err := p.withRetired(p.inTurn(func() (err error) {
			room, err = p.options.Heap.ReservePrivate(seg)
			return err
		}))
		p.mu.Lock()
		defer p.unlock()
		p.after(seg.Unref)
		switch {
		case err != nil:
			w.answerFull(request, err)
		case w.judged:
			p.after(room.Release)
		default:
			w.answerPrivate(request, seg, room)
		}
	})
	if !begun {
		p.after(seg.Unref)
	}
}

func (w *worker) answerFull(request uint64, err error) {
	var e encoder
	e.u8(fetchedFull)
	e.str(allocError(err))
	w.send(frameFetched, request, e.buf)
}

func (w *worker) answerPrivate(request uint64, seg *shm.Segment, room *shm.Reservation) {
	fd, err := seg.ReaderFD()
	if err != nil {
		w.pool.after(room.Release)
		w.answerError(request, err.Error())
		return
	}
	w.note(seg)
	w.reserved[room.ID()] = room
	var e encoder
	e.u8(fetchedHere)
	e.array(whole(seg), true, 0)
	e.u64(room.ID())
	w.send(frameFetched, request, e.buf, fd)
}

// findSegment gives a segment that a worker asks for by number.
func (w *worker) findSegment(t *Task, id uint64) *shm.Segment {
	for _, a := range t.call.Arrays {
		if a.Segment.ID() == id {
			return a.Segment
		}
	}
	return w.known[id]
}

func (w *worker) answerGone(request, id uint64) {
	w.answerError(request, fmt.Sprintf("segment %d is gone: its array was replaced and nothing pins it", id))
}

// whole is a segment as bytes; the worker knows what lies in it.
func whole(seg *shm.Segment) *Array {
	return &Array{Segment: seg, Layout: Layout{Descr: "|u1", Itemsize: 1, Shape: []int64{seg.Size()}, Strides: []int64{1}}}
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
	w.answerValue(request, t, CodecState, "state for a worker", func(source Source) ([]byte, error) {
		return source.Export(path)
	})
}

func (w *worker) fetchKeys(request uint64, t *Task) {
	w.answerValue(request, t, CodecJSON, "keys for a worker", func(source Source) ([]byte, error) {
		return json.Marshal(source.Keys())
	})
}

// answerValue makes a value of the task's version outside the lock, since it may be large, and sends it.
func (w *worker) answerValue(request uint64, t *Task, codec uint8, label string, of func(Source) ([]byte, error)) {
	source := t.call.Source
	if source == nil {
		w.answerError(request, "this task reads no version of the state")
		return
	}
	p := w.pool
	p.forWorker(label, func() {
		var value Value
		data, err := of(source)
		if err == nil {
			err = p.withRetired(p.inTurn(func() (err error) {
				value, err = NewValue(p.options.Heap, codec, [][]byte{data}, label)
				return err
			}))
		}
		p.mu.Lock()
		defer p.unlock()
		p.after(value.Release)
		if w.judged {
			return
		}
		if isFull(err) {
			w.answerFull(request, err)
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
	p.mu.Lock()
	defer p.unlock()
	p.forWorker("segment for a worker", func() {
		if size > 1<<62 {
			size = 1 << 62 // refused by the budget, with its message
		}
		var seg *shm.Segment
		var writer int
		var used bool
		err := p.withRetired(p.inTurn(func() (err error) {
			seg, writer, used, err = p.options.Heap.Grant(int64(size), label)
			return err
		}))
		p.mu.Lock()
		defer p.unlock()
		t := p.tasks[id]
		if err == nil && (w.judged || t == nil || t.worker != w) {
			_ = closeFD(writer)
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
		e.u8(flag(used, 1))
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
