package shm

// A slot of 64 bytes would keep the 4 MiB of its arena for ever. So when most of an arena is dead, what is left is copied to
// another: slots never change once they are written, and nobody but the state holds them by name. Who
// reads one has pinned its arena, which is then left as it is until he has let go.

// sparseShare: an arena of which less than this part lives is cleared. A copied byte then frees three.
const sparseShare = 4

// note keeps in mind whether an arena is to be cleared. arenas.mu is held.
func (all *arenas) note(a *arena) {
	a.sparse.Store(a != all.open && a.first != nil && a.live*sparseShare < a.segment.size)
}

// evacuate moves all slots out of an arena that is mostly dead, unless someone reads in it. It is called
// whenever a slot or a reader of the arena has gone; no lock of this package or of the pool is held. If there is no room for
// the copies, what has been moved has been moved.
func (h *Heap) evacuate(a *arena) {
	// Whoever finds another goroutine at it leaves word: that one looks again, since it may have looked before the last reader
	// had gone. It takes the word only after it has given up moving, so none is lost between the two.
	a.look.Store(true)
	for a.sparse.Load() && a.look.Load() && a.moving.CompareAndSwap(false, true) {
		a.look.Store(false)
		err := h.moveAll(h.arenas.unread(a))
		a.moving.Store(false)
		if err != nil {
			return
		}
	}
}

// moveAll moves slots to the open arena, and lets go of the references to them.
func (h *Heap) moveAll(slots []*Slot) (err error) {
	for _, s := range slots {
		if err == nil {
			err = s.move()
		}
		s.Unref()
	}
	return err
}

// unread lists the slots of a sparse arena, with a reference to each; none if someone reads in it.
func (all *arenas) unread(a *arena) (slots []*Slot) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if !a.sparse.Load() || a.segment.refs.Load() != a.count.Load() {
		return nil
	}
	for s := a.first; s != nil; s = s.next {
		if s.tryRef() {
			slots = append(slots, s)
		}
	}
	return slots
}

// move copies the slot to a place of its own in the open arena. It takes another slot's place, which
// takes this one's and is given up with it. The other one stays where it is meanwhile, since it is not written.
func (s *Slot) move() error {
	other, err := s.heap.Reserve(s.size, s.label)
	if err != nil {
		return err
	}
	s.mu.Lock()
	copyBytes(other.arena.segment.w.addr+uintptr(other.offset), s.arena.segment.w.addr+uintptr(s.offset), s.size)
	s.heap.arenas.swap(s, other)
	s.mu.Unlock()
	other.Discard()
	s.heap.arenas.moved.Add(1)
	return nil
}

// swap exchanges the places of two slots of the same size.
func (all *arenas) swap(x, y *Slot) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.unlink(x)
	all.unlink(y)
	x.arena, y.arena = y.arena, x.arena
	x.offset, y.offset = y.offset, x.offset
	all.link(x)
	all.link(y)
}
