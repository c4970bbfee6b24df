package shm

import (
	"sync"
	"sync/atomic"
)

// Small arrays share their pages with others that are published already, and freezing works on whole
// pages. So a small array is written elsewhere, in a draft, and copied into its slot when it is published. A pointer
// taken before stays one into the draft: it can be written for ever and reaches nobody.

// smallestChunk is what the first draft costs.
const smallestChunk = 64 << 10

// drafts are the host's private memory of a heap in which small arrays are written.
type drafts struct {
	mu   sync.Mutex // guards what follows and all chunks
	open *chunk     // where the next draft goes; nil: none
	held int64      // bytes of all chunks
}

// chunk is a piece of it, handed out from front to back and given back as a whole, with its last draft.
type chunk struct {
	m      mapping
	charge *charge
	used   int64
	count  atomic.Int64 // drafts that are not gone; changed under drafts.mu
}

// Draft is the memory of a small array that is not published yet: zeroed, and of the host alone.
type Draft struct {
	heap    *Heap
	chunk   *chunk
	address uintptr
}

// Draft gives memory to write a small array in. Errors as for Create.
func (h *Heap) Draft(size int64, label string) (*Draft, error) {
	all := &h.drafts
	all.mu.Lock()
	defer all.mu.Unlock()
	taken := (max(size, 1) + slotAlign - 1) / slotAlign * slotAlign
	if all.open == nil || all.open.m.size-all.open.used < taken {
		made, err := h.newChunk(all.held, taken, label)
		if err != nil {
			return nil, err
		}
		all.open = made
		all.held += made.m.size
	}
	c := all.open
	d := &Draft{heap: h, chunk: c, address: c.m.addr + uintptr(c.used)}
	c.used += taken
	c.count.Add(1)
	return d, nil
}

// newChunk makes a chunk with room for a draft: a large one if it may, one that just suffices if not.
func (h *Heap) newChunk(held, draft int64, label string) (*chunk, error) {
	size := h.nextSize(held, smallestChunk, draft)
	c, err := h.mapChunk(size, label)
	if err != nil && size > roundUp(draft) {
		c, err = h.mapChunk(roundUp(draft), label)
	}
	return c, err
}

func (h *Heap) mapChunk(size int64, label string) (*chunk, error) {
	charge, err := h.reserve(label, uint64(size))
	if err != nil {
		return nil, err
	}
	c := &chunk{charge: charge}
	charge.sharedBy(&c.count, inDrafts)
	c.m, err = makeMap(size, func() (uintptr, error) { return mapAnonymous(size) })
	if err != nil {
		charge.abort()
		charge.release()
		return nil, err
	}
	return c, nil
}

// Address is where it is written. It stays the same until Release.
func (d *Draft) Address() uintptr { return d.address }

// Release gives the memory back, once: the address is no longer valid.
func (d *Draft) Release() {
	all := &d.heap.drafts
	all.mu.Lock()
	defer all.mu.Unlock()
	c := d.chunk
	if c.count.Add(-1) > 0 {
		return
	}
	if all.open == c {
		all.open = nil
	}
	all.held -= c.m.size
	c.m.close()
	c.charge.release()
}
