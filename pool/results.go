package pool

// What a task's result is made of: the value, and the arrays that lie in segments which its worker filled or was given.

import (
	"errors"
	"fmt"

	"github.com/theus-project/theus-go/shm"
)

// endWith turns what a worker sent into the task's outcome. Segments that it wrote are adopted: the kernel proves that nobody writes
// them any more. mu is held, and released while that is done.
func (p *Pool) endWith(t *Task, w *worker, value wireValue, arrays []wireArray, o Outcome) {
	o.Value.Codec = value.codec
	o.Value.Inline = value.inline
	if value.segmentID == 0 && len(arrays) == 0 {
		p.finish(t, o)
		return
	}
	if t.finished { // cancelled meanwhile; finish has given its segments back
		return
	}
	from := takeover{heap: p.options.Heap, segments: map[uint64]*shm.Segment{}, granted: map[uint64]bool{}, slots: map[uint64]*shm.Slot{}}
	for _, id := range append(segmentIDs(arrays), value.segmentID) {
		if id == 0 || from.segments[id] != nil {
			continue
		}
		if seg := t.removeGrant(id); seg != nil {
			from.segments[id], from.granted[id] = seg, true
		} else if seg := w.known[id]; seg != nil {
			if seg.TryRef() { // it lives if the task's version or its input holds it; a worker may name any
				from.segments[id] = seg
			}
		}
	}
	err := p.unlocked(func() error {
		from.packSmall(value, arrays)
		if err := from.adoptAll(); err != nil {
			return err
		}
		return from.fill(&o, value, arrays)
	})
	p.after(from.release)
	if err != nil {
		refused := o // of which fill may have taken a part
		p.after(refused.release)
		o = Outcome{Status: Failed, Type: "MemoryError", Text: err.Error(), Message: fmt.Sprintf("the result of %s cannot be taken over: %v", t.name, err)}
	}
	p.finish(t, o)
}

// takeover is the memory that a result names.
type takeover struct {
	heap     *shm.Heap
	segments map[uint64]*shm.Segment // one reference each
	granted  map[uint64]bool         // those that the worker filled
	slots    map[uint64]*shm.Slot    // copies of small ones, one reference each
}

func (f *takeover) release() {
	for _, seg := range f.segments {
		seg.Unref()
	}
	for _, slot := range f.slots {
		slot.Unref()
	}
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

// packSmall copies small arrays out of the segments that were granted for them: as many segments as arrays would be too many
// descriptors. Where there is no room for the copy, the segment is adopted as it is.
func (f *takeover) packSmall(value wireValue, arrays []wireArray) {
	for id := range f.granted {
		seg := f.segments[id]
		if id == value.segmentID || !f.heap.Small(seg.Len()) || !fillsFromItsStart(seg, arrays) {
			continue
		}
		if slot, err := f.heap.Pack(seg, seg.Label()); err == nil {
			f.slots[id] = slot
		}
	}
}

// fillsFromItsStart reports whether the arrays that a result has in a segment begin where it begins.
func fillsFromItsStart(seg *shm.Segment, arrays []wireArray) bool {
	for _, a := range arrays {
		if a.segmentID == seg.ID() && (a.offset != 0 || !a.layout.within(0, uint64(seg.Len()))) {
			return false
		}
	}
	return true
}

// adoptAll makes worker-written segments the host's, or copies of them where the proof is refused.
func (f *takeover) adoptAll() error {
	for id := range f.granted {
		if f.slots[id] != nil {
			continue
		}
		seg := f.segments[id]
		err := seg.Adopt()
		if err == nil {
			continue
		}
		if !errors.Is(err, shm.ErrStillWritten) && !errors.Is(err, shm.ErrNoProof) {
			return err
		}
		private, err := f.heap.Copy(seg, seg.Label())
		if err != nil {
			return err
		}
		seg.Unref()
		f.segments[id] = private
	}
	return nil
}

// versionOf tells which version of the state an array was published in: what the task wrote itself, in none yet.
func (f *takeover) versionOf(a wireArray) uint64 {
	if f.granted[a.segmentID] {
		return 0
	}
	return a.version
}

// fill builds the outcome's value and arrays on the memory, each with a reference of its own.
func (f *takeover) fill(o *Outcome, value wireValue, arrays []wireArray) error {
	if value.segmentID != 0 {
		seg := f.segments[value.segmentID]
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
		seg := f.segments[a.segmentID]
		if seg == nil || !a.layout.within(a.offset, uint64(seg.Size())) {
			return fmt.Errorf("array %q lies outside of any segment that this task was given", a.key)
		}
		if slot := f.slots[a.segmentID]; slot != nil {
			slot.Ref()
			o.Arrays = append(o.Arrays, InSlot(slot, a.key, a.layout))
			continue
		}
		seg.Ref()
		o.Arrays = append(o.Arrays, &Array{Segment: seg, Offset: a.offset, Key: a.key, Version: f.versionOf(a), Layout: a.layout})
	}
	return nil
}
