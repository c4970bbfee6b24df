package shm

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// A heap without a limit of its own leaves this share to everything else.
	defaultShare = 80
	// A heap with one may go further, but not to where the kernel starts killing:
	// page tables, stacks and the workers' own memory come from the rest.
	hardShare = 95
	// The machine is looked at again for an allocation of this size, and after
	// this many bytes of smaller ones.
	largeBytes = 1 << 20
	smallBytes = 16 << 20
	// How many holders an error names.
	holdersInError = 5
)

// budget accounts for the shared memory of the process.
type budget struct {
	headroom func() (headroom, error)
	recycler recycler

	mu      sync.Mutex
	inUse   uint64
	pending uint64 // reserved, but its pages are not allocated yet: the kernel does not count them
	charges map[*charge]struct{}

	known     bool     // the following were read
	left      headroom // what the machine had left…
	base      uint64   // …in addition to this, which was ours
	unchecked uint64   // bytes reserved since
}

var process = newBudget(readHeadroom("/"))

func newBudget(read func() (headroom, error)) *budget {
	return &budget{headroom: read, charges: map[*charge]struct{}{}}
}

// What small arrays are called together.
const (
	inArenas = "small arrays"
	inDrafts = "small arrays under construction"
)

// charge is what one segment, or one piece of memory that many arrays share, takes.
type charge struct {
	budget   *budget
	heap     *Heap
	label    string
	bytes    uint64
	pending  uint64
	retiring bool
	spare    bool // kept for reuse
	reused   bool // it was that before
	copied   bool // of pages that a process may write for itself, beside the segment's own
	released bool
	aborted  bool // its segment was never finished

	// of a shared piece: how many arrays have a part of it, and what they are called together
	arrays *atomic.Int64
	name   string
}

// reserve takes n bytes before anything is allocated.
func (b *budget) reserve(h *Heap, label string, n uint64) (*charge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit := h.options.Limit; limit != 0 && !fits(h.used, n, limit) {
		return nil, b.full(h, label, n, h.used, limit, "heap=", nil)
	}
	fresh := !b.known || n >= largeBytes || b.unchecked+n > smallBytes
	if fresh {
		if err := b.look(); err != nil {
			return nil, err
		}
	}
	if !fits(b.inUse, n, b.ceiling(h)) && !fresh {
		// What was known may be out of date.
		if err := b.look(); err != nil {
			return nil, err
		}
	}
	if !fits(b.inUse, n, b.ceiling(h)) {
		return nil, b.full(h, label, n, b.inUse, b.ceiling(h), b.left.source, nil)
	}
	c := &charge{budget: b, heap: h, label: label, bytes: n, pending: n}
	b.charges[c] = struct{}{}
	b.inUse += n
	h.used += n
	b.pending += n
	b.unchecked += n
	return c, nil
}

// look reads what the machine has left. Pages that others are promised but do not
// have yet are not left: without this, two threads would both be given the last ones.
func (b *budget) look() error {
	left, err := b.headroom()
	if err != nil {
		return err
	}
	left.bytes -= min(left.bytes, b.pending)
	b.known, b.left, b.base, b.unchecked = true, left, b.inUse, 0
	return nil
}

// ceiling is what all heaps together may hold, for an allocation by h.
func (b *budget) ceiling(h *Heap) uint64 {
	share := uint64(defaultShare)
	if h.options.Limit != 0 {
		share = hardShare
	}
	return (b.base + b.left.bytes) / 100 * share
}

// ceilingOf is what all heaps together may hold as far as is known, without looking at the machine.
func (b *budget) ceilingOf(h *Heap) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ceiling(h)
}

// fits tells whether used+n ≤ limit, for any numbers.
func fits(used, n, limit uint64) bool {
	return used <= limit && n <= limit-used
}

// full builds the error. b.mu is held.
func (b *budget) full(h *Heap, label string, asked, inUse, limit uint64, source string, cause error) error {
	of := h
	if source != "heap=" {
		of = nil // the limit is everybody's: name everybody's
	}
	return &FullError{Asked: asked, InUse: inUse, Limit: limit, Source: source, Label: label, Cause: cause,
		Holders: b.largest(of, holdersInError)}
}

// largest gives the largest charges, of one heap or (nil) of all. What small arrays share counts as one holder of
// each kind: nobody would find his array in one of a hundred arenas. b.mu is held.
func (b *budget) largest(of *Heap, n int) []Holder {
	var all []Holder
	together := map[Holder]Holder{} // by name and Retiring
	for c := range b.charges {
		switch {
		case of != nil && c.heap != of, c.spare:
		case c.arrays == nil:
			all = append(all, Holder{Label: c.label, Bytes: c.bytes, Retiring: c.retiring})
		default:
			kind := Holder{Label: c.name, Retiring: c.retiring}
			sum := together[kind]
			sum.Label = c.label
			sum.Bytes += c.bytes
			sum.Arrays += c.arrays.Load()
			together[kind] = sum
		}
	}
	for kind, sum := range together {
		sum.Retiring = kind.Retiring
		if sum.Arrays != 1 {
			sum.Label = fmt.Sprintf("%d %s", sum.Arrays, kind.Label)
		}
		all = append(all, sum)
	}
	slices.SortFunc(all, func(x, y Holder) int {
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(x.Label, y.Label))
	})
	return all[:min(max(n, 0), len(all))]
}

func (b *budget) holders(h *Heap, n int) []Holder {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.largest(h, n)
}

// slotReturned counts a small array. Its bytes come back with those of its arena.
func (b *budget) slotReturned(h *Heap) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h.returned.Segments++
}

func (b *budget) returned(h *Heap) Returned {
	b.mu.Lock()
	defer b.mu.Unlock()
	return h.returned
}

func (b *budget) retiring(h *Heap) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.charges {
		if c.heap == h && c.retiring {
			return true
		}
	}
	return false
}

func (b *budget) stats(h *Heap) HeapStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := HeapStats{InUse: h.used, Limit: h.options.Limit, Recycled: h.recycled.Load(), Moved: h.arenas.moved.Load()}
	for c := range b.charges {
		switch {
		case c.heap != h:
		case c.spare:
			s.FreeList += c.bytes
		case c.retiring:
			s.Retiring++
			s.RetiringBytes += c.bytes
		case c.name == inArenas:
			s.Arenas++
		case c.arrays == nil && !c.copied:
			s.Segments++
		}
	}
	s.InUse -= s.FreeList
	s.Segments += int(h.arenas.slots.Load())
	if s.Limit == 0 {
		_ = b.look() // else the limit as last known
		s.Limit = b.ceiling(h)
	}
	return s
}

// sharedBy makes it the charge of what many arrays share. It is not shared itself yet.
func (c *charge) sharedBy(arrays *atomic.Int64, name string) {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.arrays, c.name = arrays, name
}

// committed says that n more bytes of the segment have their pages, so the
// kernel's own numbers now show them.
func (c *charge) committed(n int64) {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.settle(min(uint64(n), c.pending))
}

// stillFits looks again before each further piece of what was reserved. Other programs take from the same machine or
// control group meanwhile; where two have looked at the same moment there is not enough for both, and past the limit
// of a group the kernel does not refuse, it kills.
func (c *charge) stillFits() error {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.pending == c.bytes {
		return nil // the first piece: it was looked at just now
	}
	if err := b.look(); err != nil {
		return err
	}
	if fits(b.inUse, 0, b.ceiling(c.heap)) {
		return nil
	}
	return b.full(c.heap, c.label, c.bytes, b.inUse-c.bytes, b.ceiling(c.heap), b.left.source, nil)
}

func (c *charge) settle(n uint64) {
	c.pending -= n
	c.budget.pending -= n
}

// refused turns the kernel's refusal to give pages into a FullError.
func (c *charge) refused(err error) error {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	b := c.budget
	return b.full(c.heap, c.label, c.bytes, b.inUse-c.bytes, b.ceiling(c.heap), b.left.source, err)
}

// ofCopy makes it the charge of a private map: its pages stay promised, since the kernel gives them when they are written.
func (c *charge) ofCopy() {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.copied = true
	c.label += " (private copy)"
}

// keepSpare marks what nobody uses and the heap keeps. Its array has gone; the bytes go when they are released.
func (c *charge) keepSpare() {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	if c.arrays == nil {
		c.heap.returned.Segments++
	}
	c.retiring, c.spare = false, true
	c.label, c.arrays, c.name = "(kept for reuse)", nil, ""
}

// reuse makes what was kept the charge of a segment again.
func (c *charge) reuse(label string) {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.spare, c.reused = false, true
	c.label = label
}

// retire marks what the host has let go of but workers have not.
func (c *charge) retire() {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.retiring = true
}

// release gives the bytes back, once.
func (c *charge) release() {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.released {
		panic("shm: bytes of " + c.label + " were given back twice")
	}
	c.released = true
	c.settle(c.pending)
	b.inUse -= c.bytes
	c.heap.used -= c.bytes
	delete(b.charges, c)
	if !c.aborted {
		c.heap.returned.Bytes += c.bytes
		if c.arrays == nil && !c.spare && !c.copied { // as HeapStats.Segments counts; what arrays share is counted by its slots
			c.heap.returned.Segments++
		}
	}
}

// abort says that the bytes, once released, do not count as returned: nobody ever had them.
func (c *charge) abort() {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.aborted = !c.reused
}
