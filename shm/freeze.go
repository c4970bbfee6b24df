package shm

// Freeze publishes a host-written segment: from here on nobody can change what
// readers see. Pointers that were taken into it stay valid; what is written
// through them stays private to the host. Frozen already, or live: nothing
// happens. Writes that are under way in other threads may or may not be seen.
//
// ErrNotAdopted for a granted segment, ErrDropped, *LimitError.
func (s *Segment) Freeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case frozen, live:
		return nil
	case granted:
		return s.fail("freeze", ErrNotAdopted)
	case dropped:
		return s.fail("freeze", ErrDropped)
	}
	if err := s.mapReadable(); err != nil {
		return err
	}
	if err := s.swapWritable(); err != nil {
		return err
	}
	s.state = frozen
	return nil
}

// swapWritable puts a private map where the writable one is. The writable one
// is moved aside first: its page tables are filled already. A kernel that cannot
// (before 5.13) loses it.
func (s *Segment) swapWritable() error {
	if !s.heap.features.DontUnmapMove {
		return s.coverWritable()
	}
	aside, err := makeMap(s.size, func() (uintptr, error) { return moveAside(s.w.addr, s.size) })
	if err != nil {
		return err
	}
	// The old address is still a shared map. If it cannot be covered it goes on being
	// the writable map, and the one moved aside is not needed.
	if _, err := mapPrivate(s.fd, s.w.addr, s.size); err != nil {
		aside.close()
		return mapError(err)
	}
	s.stale, s.w = s.w, aside
	return nil
}

// coverWritable replaces the writable map by a private one in one step of the kernel.
func (s *Segment) coverWritable() error {
	if _, err := mapPrivate(s.fd, s.w.addr, s.size); err != nil {
		return mapError(err)
	}
	s.stale, s.w = s.w, mapping{}
	return nil
}
