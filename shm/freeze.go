package shm

// Freeze publishes a host-written segment: from here on nobody can change what
// readers see. Pointers that were taken into it stay valid; what is written
// through them stays private to the host. Frozen already, live, or an arena: nothing
// happens. Writes that are under way in other threads may or may not be seen.
//
// ErrNotAdopted for a granted segment, ErrNotSettled for an output, ErrDropped, *LimitError.
func (s *Segment) Freeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.prepareFreeze(); err != nil || s.state != building {
		return err
	}
	if err := s.swapWritable(); err != nil {
		return err
	}
	s.state = frozen
	return nil
}

// PrepareFreeze takes all that Freeze could be refused: the mappings. So several segments can be
// frozen together or not at all. The segment stays writable. Undone by AbandonFreeze. Errors as for Freeze.
func (s *Segment) PrepareFreeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prepareFreeze()
}

// AbandonFreeze gives back what PrepareFreeze took.
func (s *Segment) AbandonFreeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside.close()
}

// prepareFreeze sees to it that an adopted segment is sealed. Of another one it makes R, and moves the writable map's page tables aside: they are filled already, and the map that
// is left at the old address shows the same pages. s.mu is held.
func (s *Segment) prepareFreeze() error {
	switch s.state {
	case frozen:
		return s.share()
	case live, packed:
		return nil
	case granted:
		return s.fail("freeze", ErrNotAdopted)
	case output:
		return s.fail("freeze", ErrNotSettled)
	case dropped:
		return s.fail("freeze", ErrDropped)
	}
	if err := s.mapReadable(); err != nil {
		return err
	}
	if s.aside.addr != 0 || !s.heap.features.DontUnmapMove {
		return nil
	}
	aside, err := makeMap(s.size, func() (uintptr, error) { return moveAside(s.w.addr, s.size) })
	s.aside = aside
	return err
}

// swapWritable puts a private map where the writable one is, in one step of the kernel that needs no room for
// one more map. A kernel that cannot move maps aside (before 5.13) loses the writable one. If it is
// refused, the old address goes on being the writable map.
func (s *Segment) swapWritable() error {
	if _, err := mapPrivate(s.fd, s.w.addr, s.size); err != nil {
		s.aside.close()
		return mapError(err)
	}
	s.stale, s.w, s.aside = s.w, s.aside, mapping{}
	return nil
}
