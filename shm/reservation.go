package shm

import "sync"

// Reservation is room in the budget for a private map of a segment in another process: each of its pages may be written, and
// is then memory of that process, which the budget would not see. It has a number of the same kind as a
// segment's, never used again.
type Reservation struct {
	id     uint64
	charge *charge
	once   sync.Once
}

// ReservePrivate takes room for a private map of a segment elsewhere. *FullError, *KernelError.
func (h *Heap) ReservePrivate(s *Segment) (*Reservation, error) {
	c, err := h.reserve(s.label, uint64(s.size))
	if err != nil {
		return nil, err
	}
	c.ofCopy()
	return &Reservation{id: lastID.Add(1), charge: c}, nil
}

// ID is its number, never 0.
func (r *Reservation) ID() uint64 { return r.id }

// Release gives the room back. It may be called again.
func (r *Reservation) Release() { r.once.Do(r.charge.release) }
