package shm

// CreateAppended makes a segment that the host fills from front to back, with Append. Errors as for Create.
func (h *Heap) CreateAppended(size int64, label string) (*Segment, error) {
	s, err := h.begin(size, label, packed)
	if err != nil {
		return nil, err
	}
	return s.orGiveUp(s.openForHost(sealSize | h.futureWrite()))
}

// Append writes n bytes from an address in the host behind what was written before, and gives their offset. Readers may be told
// of them from then on: they never change again. False, and nothing is written, when there is no room left.
func (s *Segment) Append(from uintptr, n int64) (offset int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != packed || s.arena != nil || n > s.size-s.appended {
		return 0, false
	}
	offset = s.appended
	copyBytes(s.w.addr+uintptr(offset), from, n)
	s.appended += n
	return offset, true
}
