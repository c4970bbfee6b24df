package shm

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Slot is the place of a small array in an arena. It is written once, before anyone reads it. Whoever
// reads it pins the place for that time.
type Slot struct {
	heap  *Heap
	size  int64
	label string
	refs  atomic.Int64
	gone  func() // see OnGone

	mu     sync.Mutex // guards the place; taken before arenas.mu, which is needed as well to change it
	arena  *arena
	offset int64

	previous, next *Slot // in its arena's list; guarded by arenas.mu

	// Its segment once more, from the reservation until the slot is written: until then it is not moved, so that what
	// is written is written where readers were told. Of whoever reserved it, alone.
	unwritten *Segment
}

// Len is the number of bytes asked for.
func (s *Slot) Len() int64 { return s.size }

// Refs counts the references, as they were a moment ago.
func (s *Slot) Refs() int64 { return s.refs.Load() }

// taken is what the slot takes of its arena. A slot of nothing takes some too, so that two arrays never
// begin at the same place.
func (s *Slot) taken() int64 {
	return (max(s.size, 1) + slotAlign - 1) / slotAlign * slotAlign
}

// Pin says where the slot is, and gives a reference to that segment: as long as it is held, the bytes
// stay there. The caller has a reference to the slot.
func (s *Slot) Pin() (seg *Segment, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arena.segment.Ref()
	return s.arena.segment, s.offset
}

// Write copies the slot's content from an address in the host. Nobody may have been told of the slot yet.
func (s *Slot) Write(from uintptr) {
	s.mu.Lock()
	copyBytes(s.arena.segment.w.addr+uintptr(s.offset), from, s.size)
	s.mu.Unlock()
	s.written()
}

// written lets the slot be moved from now on.
func (s *Slot) written() {
	if seg := s.unwritten; seg != nil {
		s.unwritten = nil
		seg.Unref()
	}
}

// Ref takes one more reference. The caller has one already.
func (s *Slot) Ref() {
	if s.refs.Add(1) <= 1 {
		panic(fmt.Sprintf("shm: Ref of the slot of %q, which was let go", s.label))
	}
}

// Unref gives a reference back. The last one gives up the slot; its bytes are in use until all of the
// arena is given up.
func (s *Slot) Unref() {
	switch n := s.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic(fmt.Sprintf("shm: the slot of %q was let go once too often", s.label))
	}
	s.heap.budget.slotReturned(s.heap)
	s.giveUp()
	if s.gone != nil {
		s.gone()
	}
}

// OnGone has f called when the last reference has been given back, without any lock of this package held. Of whoever made the
// reservation, before anyone else has the slot.
func (s *Slot) OnGone(f func()) { s.gone = f }

// Discard undoes a reservation: nobody has had the slot, so it does not count as returned.
func (s *Slot) Discard() {
	s.refs.Store(0)
	s.giveUp()
}

func (s *Slot) giveUp() {
	s.heap.arenas.remove(s).Unref()
	s.written()
}

// tryRef takes one more reference unless the slot was let go.
func (s *Slot) tryRef() bool {
	for {
		n := s.refs.Load()
		if n <= 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Pack copies a small segment into a slot, whatever its writer may still do to it. The caller holds a reference to the segment.
// Errors as for Create.
func (h *Heap) Pack(seg *Segment, label string) (*Slot, error) {
	s, err := h.Reserve(seg.Len(), label)
	if err != nil {
		return nil, err
	}
	if err := s.readFrom(seg); err != nil {
		s.Discard()
		return nil, err
	}
	s.written()
	return s, nil
}

// readFrom fills the slot by reading the segment's file: cheaper than mapping it for one copy.
func (s *Slot) readFrom(seg *Segment) error {
	seg.mu.Lock()
	defer seg.mu.Unlock()
	if seg.state == dropped {
		return seg.fail("copy", ErrDropped)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := readInto(s.arena.segment.w.addr+uintptr(s.offset), seg.fd, s.size); err != nil {
		return seg.fail("copy", err)
	}
	return nil
}
