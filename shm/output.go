package shm

import "syscall"

// CreateOutput makes a zeroed segment that the host writes, and those who are given WriterFD, until Settle. Errors as for
// Create.
func (h *Heap) CreateOutput(size int64, label string) (*Segment, error) {
	return h.makeForHost(size, label, output, sealSize)
}

// Settle ends the writing of an output. The host's own ends at once: its addresses stay valid, and what it writes through them
// from here on stays private. The others' has ended if the kernel proves so, and then the segment is frozen. Frozen
// already: nothing happens.
//
// ErrStillWritten and ErrNoProof as for Adopt: it may be tried again, or copied. ErrNotOutput, ErrDropped, *LimitError.
func (s *Segment) Settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case dropped:
		return s.fail("settle", ErrDropped)
	case building, live, packed:
		return s.fail("settle", ErrNotOutput)
	case output:
		if err := s.stopWriting(); err != nil {
			return err
		}
	}
	return s.adopt()
}

// stopWriting leaves the host with an O_RDONLY description, and with a private map of that where the writable one was: the
// map of an O_RDWR description would count as a writer. s.mu is held.
func (s *Segment) stopWriting() error {
	fd, err := s.reopen(syscall.O_RDONLY)
	if err != nil {
		return err
	}
	if _, err := mapPrivate(fd, s.w.addr, s.size); err != nil {
		closeFD(fd)
		return mapError(err)
	}
	s.stale, s.w = s.w, mapping{}
	closeFD(s.fd)
	s.fd = fd
	s.state = granted
	return nil
}
