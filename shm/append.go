package shm

// CreateAppended makes a segment that the host fills from front to back, with Append. Errors as for Create.
func (h *Heap) CreateAppended(size int64, label string) (*Segment, error) {
	return h.makeForHost(size, label, packed, sealSize|h.futureWrite())
}

// appendPiece is what is copied at once: a copy cannot be interrupted, and the garbage collector would wait for it.
const appendPiece = 1 << 20

// Append writes n bytes from an address in the host behind what was written before, and gives their offset. Readers may be told
// of them from then on: they never change again. False, and nothing is written, when there is no room left. The caller has a
// reference, and appends in one goroutine at a time.
func (s *Segment) Append(from uintptr, n int64) (offset int64, ok bool) {
	to, offset, ok := s.takeRoom(n)
	if !ok {
		return 0, false
	}
	// Without the lock: readers are let in meanwhile, to what was there before. The source may be on a slow disk.
	for done := int64(0); done < n; done += appendPiece {
		copyBytes(to+uintptr(done), from+uintptr(done), min(appendPiece, n-done))
	}
	return offset, true
}

func (s *Segment) takeRoom(n int64) (to uintptr, offset int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != packed || s.arena != nil || n > s.size-s.appended {
		return 0, 0, false
	}
	offset = s.appended
	s.appended += n
	return s.w.addr + uintptr(offset), offset, true
}
