package shm

import (
	"slices"
	"sync"
	"time"
)

// A fresh page costs ten times what a warm one does, most of it in the kernel. So the memory of an arena, or of a segment
// that the host wrote or a worker was to write, that nobody uses any more is kept for the next one of its kind, under one law: a page is never used again while
// any process can still see it. To let go is always safe, since the kernel keeps the pages for whoever maps them; to reuse
// needs proof. That workers have said RETIRED is none, since a child that user code forked in a worker still maps what its
// parent let go of.

const (
	// How many arenas a heap keeps: 16 MiB at most.
	mostSpares = 4
	// How many segments it keeps: each takes a descriptor and a mapping.
	mostSpareSegments = 64
	// What the segments that are kept may be of all that the heaps could hold. A heap's own limit needs no share:
	// what is kept counts in it, and is given back before anything is refused.
	spareShare = 4
	// A segment is used again for one that is smaller by at most this part of it.
	spareSlack = 8
)

// HostForks changes when this process forks, before and after: it counts both. A forked child has all maps and descriptors of the host,
// and they share their file descriptions, so that a lease does not notice it. Who embeds this package in a process that
// can fork sets it before the first heap is made; a Go program forks only to exec.
var HostForks = func() uint64 { return 0 }

// kind says what memory can be used for once more.
type kind int

const (
	forNothing kind = iota
	forArenas
	forHost   // segments that the host writes: it can, and nobody else ever
	forWriter // segments that are granted: anybody could be given a descriptor for writing, and only the size is sealed
)

// spare is the memory of an arena or segment that has gone: sealed, seen by nobody else, and mapped, but for a granted one.
type spare struct {
	heap     *Heap
	charge   *charge
	kind     kind
	fd       int
	sealable bool
	size     int64
	w        mapping
	forks    uint64 // HostForks when it was mapped
	since    time.Time
}

// recycler keeps the spares of all heaps.
type recycler struct {
	mu     sync.Mutex // guards what follows and Heap.closed; taken after Segment.mu, before budget.mu
	spares []*spare   // the oldest first
}

// unseen proves that nobody can see the memory of a segment that the host has let go of. Its readable and private
// maps are gone. s.mu is held.
func (s *Segment) unseen() bool {
	if s.forks != HostForks() { // a child of the host may map it, unknown to the kernel's count of descriptions
		return false
	}
	if !s.heap.features.WriteLeases {
		return false
	}
	return writeLease(s.fd) == nil // no other description is open, mapped or on its way in a socket
}

// usableFor tells for what the memory of a segment can be used again when it goes: the writable map of an arena, or the one that
// Freeze has moved, so that nobody has its address, or a file that was granted and can still be written. s.mu is held.
func (s *Segment) usableFor() kind {
	switch {
	case s.unfinished:
		return forNothing
	case s.arena != nil:
		return forArenas
	case s.state == frozen && s.w.addr != 0:
		return forHost
	case s.state == granted, s.sole:
		return forWriter
	}
	return forNothing
}

// keep takes over the memory of a segment that is done with. False: it is not to be used again. s.mu is held.
func (r *recycler) keep(s *Segment) bool {
	if s.reuse == forNothing || !s.unseen() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.heap.closed || !r.mayKeep(s) {
		return false
	}
	r.spares = append(r.spares, &spare{
		heap: s.heap, charge: s.charge, kind: s.reuse, fd: s.fd, sealable: s.sealable, size: s.size,
		w: s.w, forks: s.forks, since: time.Now(),
	})
	s.fd, s.w = -1, mapping{}
	s.charge.keepSpare()
	if notify := s.heap.options.OnSpare; notify != nil {
		notify()
	}
	return true
}

// mayKeep tells whether there is room for one more spare. r.mu is held.
func (r *recycler) mayKeep(s *Segment) bool {
	var ofHeap int
	var bytes uint64 // of segments, of all heaps
	for _, kept := range r.spares {
		if kept.heap == s.heap && (kept.kind == forArenas) == (s.reuse == forArenas) {
			ofHeap++
		}
		if kept.kind != forArenas {
			bytes += kept.charge.bytes
		}
	}
	if s.reuse == forArenas {
		return ofHeap < mostSpares
	}
	return ofHeap < mostSpareSegments && fits(bytes, s.charge.bytes, s.heap.budget.ceilingOf(s.heap)/spareShare)
}

// takeArena gives the newest spare of a heap that can be an arena with room for so many bytes, or nil. Its content is that
// of its last life.
func (r *recycler) takeArena(h *Heap, size int64) *spare {
	return r.take(func(kept *spare) bool { return kept.heap == h && kept.kind == forArenas && kept.size >= size })
}

// takeSegment is takeArena for a segment of so many bytes; it may be a little larger.
func (r *recycler) takeSegment(h *Heap, of kind, size int64) *spare {
	if size < 0 {
		return nil
	}
	size = roundUp(size)
	return r.take(func(kept *spare) bool {
		return kept.heap == h && kept.kind == of && kept.size >= size && kept.size-kept.size/spareSlack <= size
	})
}

func (r *recycler) take(fits func(*spare) bool) *spare {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropForked()
	for i, found := range slices.Backward(r.spares) {
		if fits(found) {
			r.spares = slices.Delete(r.spares, i, i+1)
			return found
		}
	}
	return nil
}

// dropForked lets go of what a child of the host maps. r.mu is held.
func (r *recycler) dropForked() {
	now := HostForks()
	r.drop(func(kept *spare) bool { return kept.forks != now })
}

// trim gives spares back to the kernel: of one heap or (nil) of all, those that have not been used for a time. It returns
// how many bytes, and whether there are more.
func (r *recycler) trim(of *Heap, unused time.Duration) (bytes uint64, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(func(kept *spare) bool {
		if of != nil && kept.heap != of {
			return false
		}
		if time.Since(kept.since) < unused {
			more = true
			return false
		}
		bytes += kept.charge.bytes
		return true
	})
	return bytes, more
}

// drop takes some off the list and gives them back, each also when another could not be unmapped, which is a bug. r.mu is held.
func (r *recycler) drop(which func(*spare) bool) {
	var gone []*spare
	r.spares = slices.DeleteFunc(r.spares, func(kept *spare) bool {
		if which(kept) {
			gone = append(gone, kept)
			return true
		}
		return false
	})
	for _, kept := range gone {
		defer kept.drop()
	}
}

func (s *spare) drop() {
	defer s.charge.release()
	defer closeFD(s.fd)
	s.w.close()
}

// revive makes a segment of a spare. It is another one: no descriptor of the old one means the new one.
func (h *Heap) revive(kept *spare, asked int64, label string, as state) *Segment {
	s := &Segment{
		heap: h, charge: kept.charge, id: lastID.Add(1), asked: asked, size: kept.size, label: label,
		state: as, fd: kept.fd, sealable: kept.sealable, w: kept.w, forks: kept.forks,
	}
	s.refs.Store(1)
	s.charge.reuse(label)
	h.recycled.Add(1)
	return s
}

// reviveArena makes an arena of a spare.
func (h *Heap) reviveArena(kept *spare, label string) *arena {
	s := h.revive(kept, kept.size, label, packed)
	s.arena = &arena{segment: s}
	s.charge.sharedBy(&s.arena.count, inArenas)
	return s.arena
}
