package shm

import "syscall"

// Adopt takes over a granted segment whose writer says that it has finished: it
// freezes it, once the kernel has proved that no process has it open or mapped for
// writing. Adopted already: nothing happens.
//
// A seal that forbids writing is for ever, and pages that cannot be written again are new ones for each result: 8 MB of them take
// 6 ms, of which copying them would be one. So where the kernel proves that nobody else has the segment open at all, nobody is left to be kept from
// writing it, and it is sealed only before somebody is given it: see share. If that never happens, as with most results, it is
// granted again when it is gone.
//
// ErrStillWritten: someone does (a process that the writer forked, say, or the
// descriptor waits unread in a socket); the segment stays granted, and may be tried
// again or copied. ErrNoProof: this kernel cannot tell. ErrNotGranted, ErrDropped.
func (s *Segment) Adopt() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case dropped:
		return s.fail("adopt", ErrDropped)
	case building, live, output, packed:
		return s.fail("adopt", ErrNotGranted)
	}
	return s.adopt()
}

// share forbids writing for ever, before anybody but the host has the segment. Somebody may have opened the host's descriptor by its
// name in /proc meanwhile, so it is proved once more that nobody writes. s.mu is held.
func (s *Segment) share() error {
	if !s.sole {
		return nil
	}
	if err := s.sealAndProve("share"); err != nil {
		return err
	}
	s.sole = false
	return nil
}

// sealAndProve forbids writing for ever, and has the kernel prove that nobody does. s.mu is held.
func (s *Segment) sealAndProve(doing string) error {
	if err := s.forbidWriting(); err != nil {
		return err
	}
	if err := readLease(s.fd); err != nil {
		return s.fail(doing, err)
	}
	return nil
}

// adopt freezes a granted segment. s.mu is held.
func (s *Segment) adopt() error {
	if s.state == frozen {
		return nil
	}
	if !s.heap.features.Leases {
		return s.fail("adopt", ErrNoProof)
	}
	if s.unseen() { // nobody is left who could write it, or open it again
		s.state, s.sole = frozen, true
		return nil
	}
	// A proof is about now. So writing is forbidden for later, and proved again;
	// first comes a look, so that a refusal leaves everything as it was.
	if err := readLease(s.fd); err != nil {
		return s.fail("adopt", err)
	}
	if err := s.sealAndProve("adopt"); err != nil {
		return err
	}
	s.state = frozen
	return nil
}

// forbidWriting sees to it that nobody can become a writer any more, by opening
// the file again. It does not stop those who have it mapped already.
func (s *Segment) forbidWriting() error {
	seals := s.heap.futureWrite()
	if seals == 0 || !s.sealable {
		return nil
	}
	// Only a writer may seal. The kernel has forgotten this one when close returns.
	fd, err := s.reopen(syscall.O_RDWR)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return s.seal(fd, seals)
}
