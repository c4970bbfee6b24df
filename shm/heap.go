package shm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"
)

// HeapOptions are the settings of one engine's heap.
type HeapOptions struct {
	// Limit is how many bytes the heap may hold. 0: 80 % of what the machine and
	// the process's cgroups have left, shared by all heaps of the process.
	Limit uint64
	// OnDrop is called once for each segment, after the host has unmapped and
	// closed it, in the goroutine that let go last and without any lock of this
	// package held. May be nil.
	OnDrop func(*Segment)
	// OnSpare is called when memory was kept for reuse: someone should Trim some time later. It must not call
	// into this package. May be nil.
	OnSpare func()
	// Cancelled is asked while a large segment is being made, by several goroutines at once; an error ends that
	// with the error. May be nil.
	Cancelled func() error
}

// Heap makes the segments of one engine and accounts for them. Once it is closed it is
// empty when its segments are gone; until then it may keep some memory for reuse.
type Heap struct {
	options  HeapOptions
	budget   *budget
	features Features
	memory   func() (fd int, sealable bool, err error)
	allocate allocator
	populate int64 // from this size on the host's maps are populated; 0: never
	arenas   arenas
	drafts   drafts
	recycled atomic.Uint64 // segments and arenas in memory that was used before, for Stats
	used     uint64        // guarded by budget.mu
	returned Returned      // guarded by budget.mu
	closed   bool          // nothing is kept for reuse any more; guarded by recycler.mu
}

// NewHeap makes an empty heap.
func NewHeap(o HeapOptions) *Heap {
	h := &Heap{options: o, budget: process, features: Probe(), memory: newMemory, allocate: fallocate}
	if h.features.Populate {
		h.populate = worthPopulating
	}
	return h
}

// HeapStats is what a heap holds now, in bytes and segments.
type HeapStats struct {
	InUse         uint64 // all bytes that the budget counts but for FreeList, RetiringBytes included
	Limit         uint64 // of this heap, or what all of the process may use
	FreeList      uint64 // kept for reuse, and given back before anything is refused
	Segments      int    // not yet dropped: segments with one array, and slots of arenas
	Arenas        int    // not yet dropped
	Recycled      uint64 // segments and arenas made of memory that was kept, ever
	Moved         uint64 // small arrays that left an arena that was mostly dead, ever
	Retiring      int    // segments and arenas that are dropped, but a worker still maps them
	RetiringBytes uint64
}

// Returned counts what a heap has given back since it was made: segments that neither the host nor a
// worker has mapped any more, and small arrays, whose bytes come back with the last of their arena. It only grows, so that the difference of two readings is what was given back
// in between, whatever was allocated meanwhile. The bytes of what is kept for reuse count when that is given back.
type Returned struct {
	Segments, Bytes uint64
}

// Returned counts.
func (h *Heap) Returned() Returned { return h.budget.returned(h) }

// Retiring tells whether workers still map what the host has let go of.
func (h *Heap) Retiring() bool { return h.budget.retiring(h) }

// Stats counts. Where the heap has no limit of its own it looks at the machine anew.
func (h *Heap) Stats() HeapStats { return h.budget.stats(h) }

// Holders gives the heap's n largest segments, the largest first.
func (h *Heap) Holders(n int) []Holder { return h.budget.holders(h, n) }

// Create makes a zeroed segment for the host to write, with one reference. size
// may be 0. label names it in error messages; a key, say.
//
// Errors: ErrSize, *FullError, *LimitError, *KernelError, or what Cancelled gave.
func (h *Heap) Create(size int64, label string) (*Segment, error) {
	if s := h.createAgain(size, label); s != nil {
		return s.orGiveUp(s.clear())
	}
	return h.createFresh(size, label)
}

// CreateUnzeroed is Create for who writes all of it: at first it may hold what another array of this heap held.
func (h *Heap) CreateUnzeroed(size int64, label string) (*Segment, error) {
	if s := h.createAgain(size, label); s != nil {
		return s, nil
	}
	return h.createFresh(size, label)
}

// createAgain makes a segment in memory that was kept, or nil.
func (h *Heap) createAgain(size int64, label string) *Segment {
	kept := h.budget.recycler.takeSegment(h, forHost, size)
	if kept == nil {
		return nil
	}
	s := h.revive(kept, size, label, building)
	s.address = s.w.addr
	return s
}

func (h *Heap) createFresh(size int64, label string) (*Segment, error) {
	return h.makeForHost(size, label, building, sealSize|h.futureWrite())
}

// gaveWay gives back what is kept for reuse, which takes descriptors and mappings, if a limit of the process was reached. True: it
// is worth trying again.
func (h *Heap) gaveWay(err error) bool {
	if !errors.As(err, new(*LimitError)) {
		return false
	}
	freed, _ := h.budget.recycler.trim(nil, 0)
	return freed > 0
}

// makeForHost makes a segment that the host maps and writes.
func (h *Heap) makeForHost(size int64, label string, as state, seals int) (*Segment, error) {
	s, err := h.tryForHost(size, label, as, seals)
	if h.gaveWay(err) {
		return h.tryForHost(size, label, as, seals)
	}
	return s, err
}

func (h *Heap) tryForHost(size int64, label string, as state, seals int) (*Segment, error) {
	s, err := h.begin(size, label, as)
	if err != nil {
		return nil, err
	}
	return s.orGiveUp(s.openForHost(seals))
}

// CreateLive makes a zeroed segment that stays writable, for the host and for
// those who are given WriterFD. Errors as for Create.
func (h *Heap) CreateLive(size int64, label string) (*Segment, error) {
	return h.makeForHost(size, label, live, sealSize)
}

// begin reserves the budget and makes a file, without pages yet.
func (h *Heap) begin(size int64, label string, as state) (*Segment, error) {
	if size < 0 {
		return nil, fmt.Errorf("shm: %w: %d bytes for %q", ErrSize, size, label)
	}
	s := &Segment{
		heap: h, id: lastID.Add(1), asked: size, size: roundUp(size), label: label, state: as, fd: -1,
		forks: HostForks(), // before there is a description that a child could share
	}
	s.refs.Store(1)
	charge, err := h.reserve(label, uint64(s.size))
	if err != nil {
		return nil, err
	}
	s.charge = charge
	return s.orGiveUp(s.makeFile())
}

// reserve takes bytes of the budget, before anything is allocated. What heaps keep for reuse is given back
// before it refuses.
func (h *Heap) reserve(label string, n uint64) (*charge, error) {
	c, err := h.budget.reserve(h, label, n)
	if err == nil {
		return c, nil
	}
	if freed, _ := h.budget.recycler.trim(nil, 0); freed == 0 {
		return nil, err
	}
	return h.budget.reserve(h, label, n)
}

// Trim gives back what has been kept for reuse and was not needed for a time, and reports
// whether there is more.
func (h *Heap) Trim(unused time.Duration) (more bool) {
	_, more = h.budget.recycler.trim(h, unused)
	return more
}

// Close gives back what is kept for reuse; nothing is kept from now on. Segments live on, and may be made.
func (h *Heap) Close() {
	h.budget.recycler.mu.Lock()
	h.closed = true
	h.budget.recycler.mu.Unlock()
	h.Trim(0)
}

// cancelled asks whether to go on with something large.
func (h *Heap) cancelled() error {
	if ask := h.options.Cancelled; ask != nil {
		return ask()
	}
	return nil
}

// futureWrite is the seal that forbids new writable maps, where there is one.
func (h *Heap) futureWrite() int {
	if h.features.FutureWrite {
		return sealFutureWrite
	}
	return 0
}

var lastID atomic.Uint64

// roundUp gives whole pages, at least one: a map of nothing is an error.
func roundUp(size int64) int64 {
	page := int64(os.Getpagesize())
	if size > math.MaxInt64-page {
		return math.MaxInt64 / page * page
	}
	return max(page, (size+page-1)/page*page)
}
