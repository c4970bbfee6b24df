package shm

import (
	"sync"
	"sync/atomic"
)

const (
	// An array of this size or more has a segment of its own: what a descriptor, two maps and a
	// dozen system calls cost is then little beside filling it.
	smallBelow = 1 << 20
	// A heap with a limit packs what is below this share of it, since a small array takes its size twice
	// while it is being written. All others together are then no more segments than the share.
	smallShare = 64

	// Slots are aligned for the widest vector registers and to cache lines.
	slotAlign = 64

	// The first arena of a heap is small, so that a program with three small arrays does not pay for
	// thousands. Each next one is as large as all before it together. 4 MiB at most: 100,000 arrays of 1 KiB
	// are then 26 arenas, and the copy that a mostly dead one costs stays below a millisecond.
	smallestArena = 256 << 10
	largestArena  = 4 << 20
	// A heap with a limit does not give more than this share of it to one arena.
	arenaShare = 16
)

// arenas are the segments of a heap that small arrays share.
type arenas struct {
	// growing is held while an arena is made, so that two goroutines do not make two. Taken before mu.
	growing sync.Mutex

	// mu guards what follows, and the fields of each arena that say so. No segment is let go of
	// while it is held: OnDrop may take locks of its own.
	mu   sync.Mutex
	open *arena // where slots are reserved; nil: none. It has at least one slot, so it has not been dropped
	held int64  // bytes of the arenas that have slots

	slots atomic.Int64  // of all arenas, for Stats
	moved atomic.Uint64 // slots that left an arena that was mostly dead
}

// arena is a host-written segment from which slots are handed out, one behind the other. A slot is
// never handed out twice: the arena goes as a whole, when its last slot and the last reader have gone.
type arena struct {
	segment *Segment
	count   atomic.Int64 // slots that are not gone; changed under arenas.mu

	// guarded by arenas.mu
	used  int64 // bytes handed out
	live  int64 // bytes of the slots that are not gone
	first *Slot // a list of them

	sparse atomic.Bool // mostly dead, and not open; changed under arenas.mu
	moving atomic.Bool // its slots are being moved out; set and cleared by whoever does it
	look   atomic.Bool // something of it has gone since somebody began to move; see evacuate
}

// Small reports whether an array of so many bytes belongs into an arena.
func (h *Heap) Small(size int64) bool {
	below := int64(smallBelow)
	if limit := h.options.Limit; limit != 0 {
		below = min(below, int64(limit/smallShare))
	}
	return size < below
}

// Reserve takes a slot for a small array out of an arena, with one reference. What it holds at first is
// undefined: Write it before anyone is told of it. Errors as for Create.
func (h *Heap) Reserve(size int64, label string) (*Slot, error) {
	s := &Slot{heap: h, size: size, label: label}
	s.refs.Store(1)
	for {
		if s.takeFromOpen() {
			return s, nil
		}
		full, err := s.takeFromNew()
		if err != nil {
			return nil, err
		}
		if full != nil {
			h.evacuate(full) // few of its slots may be left by now
		}
		if s.arena != nil {
			return s, nil
		}
	}
}

// takeFromOpen gives the slot its place in the open arena, if there is room.
func (s *Slot) takeFromOpen() bool {
	all := &s.heap.arenas
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.open == nil || all.open.room() < s.taken() {
		return false
	}
	all.put(s, all.open)
	return true
}

// takeFromNew opens another arena, gives the slot the first place in it, and returns the one that was open before. If
// another goroutine has just opened one, it does nothing.
func (s *Slot) takeFromNew() (full *arena, err error) {
	all := &s.heap.arenas
	all.growing.Lock()
	defer all.growing.Unlock()
	all.mu.Lock()
	grown := all.open != nil && all.open.room() >= s.taken()
	held := all.held
	all.mu.Unlock()
	if grown {
		return nil, nil
	}
	made, err := s.heap.newArena(held, s.taken(), s.label)
	if err != nil {
		return nil, err
	}
	all.mu.Lock()
	full, all.open = all.open, made
	if full != nil {
		all.note(full)
	}
	all.held += made.segment.size
	all.put(s, made)
	all.mu.Unlock()
	made.segment.Unref() // its slot has a reference
	return full, nil
}

// newArena makes an arena with room for a slot: a large one if it may, one that just suffices if not.
func (h *Heap) newArena(held, slot int64, label string) (*arena, error) {
	if kept := h.budget.recycler.takeArena(h, roundUp(slot)); kept != nil {
		return h.reviveArena(kept, label), nil
	}
	size := h.nextSize(held, smallestArena, slot)
	seg, err := h.createArena(size, label)
	if err != nil && size > roundUp(slot) {
		seg, err = h.createArena(slot, label)
	}
	if err != nil {
		return nil, err
	}
	return seg.arena, nil
}

// createArena makes the segment of an arena.
func (h *Heap) createArena(size int64, label string) (*Segment, error) {
	s, err := h.makeForHost(size, label, packed, sealSize|h.futureWrite())
	if err != nil {
		return nil, err
	}
	s.arena = &arena{segment: s}
	s.charge.sharedBy(&s.arena.count, inArenas)
	return s, nil
}

// nextSize is how large the next piece should be of which small arrays get parts: as large as
// all that there are, within bounds, and large enough for what is needed now.
func (h *Heap) nextSize(held, least, needed int64) int64 {
	size := min(max(held, least), largestArena)
	if limit := h.options.Limit; limit != 0 {
		size = min(size, int64(limit/arenaShare))
	}
	return max(roundUp(size), roundUp(needed))
}

func (a *arena) room() int64 { return a.segment.size - a.used }

// put gives a slot its place at the end of what is used of the arena. mu is held, and there is room.
func (all *arenas) put(s *Slot, a *arena) {
	a.segment.Ref()
	a.segment.Ref()
	s.unwritten = a.segment
	s.arena, s.offset = a, a.used
	a.used += s.taken()
	a.count.Add(1)
	all.slots.Add(1)
	all.link(s)
}

// remove takes a slot off its arena and gives the segment, which the caller lets go of. An open arena without slots is
// closed: nothing would keep it.
func (all *arenas) remove(s *Slot) *Segment {
	all.mu.Lock()
	defer all.mu.Unlock()
	a := s.arena
	all.unlink(s)
	all.slots.Add(-1)
	if a.count.Add(-1) == 0 {
		all.held -= a.segment.size
		if all.open == a {
			all.open = nil
		}
	}
	all.note(a)
	return a.segment
}

// link adds a slot to its arena's list. mu is held.
func (all *arenas) link(s *Slot) {
	a := s.arena
	a.live += s.taken()
	s.next = a.first
	if a.first != nil {
		a.first.previous = s
	}
	a.first = s
}

// unlink undoes link. mu is held.
func (all *arenas) unlink(s *Slot) {
	a := s.arena
	a.live -= s.taken()
	if s.previous != nil {
		s.previous.next = s.next
	} else {
		a.first = s.next
	}
	if s.next != nil {
		s.next.previous = s.previous
	}
	s.previous, s.next = nil, nil
}
