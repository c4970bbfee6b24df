package shm

import "syscall"

// Grant makes a segment for one writer elsewhere. The host does not map
// it and keeps only an O_RDONLY descriptor. writer is the one that may write: the
// caller sends it and closes it. It is zeroed, unless it is used: then it holds what another writer of this heap has
// written. Errors as for Create.
func (h *Heap) Grant(size int64, label string) (s *Segment, writer int, used bool, err error) {
	s, writer, used, err = h.tryGrant(size, label)
	if h.gaveWay(err) {
		return h.tryGrant(size, label)
	}
	return s, writer, used, err
}

func (h *Heap) tryGrant(size int64, label string) (s *Segment, writer int, used bool, err error) {
	if kept := h.budget.recycler.takeSegment(h, forWriter, size); kept != nil {
		s, used = h.revive(kept, size, label, granted), true
	} else if s, err = h.begin(size, label, granted); err == nil {
		s, err = s.orGiveUp(s.openForWriter())
	}
	if err != nil {
		return nil, -1, false, err
	}
	writer, err = s.reopen(syscall.O_RDWR)
	s, err = s.orGiveUp(err)
	return s, writer, used, err
}

// openForWriter gives the file its pages, and leaves the host with an O_RDONLY description: if it had another one, Adopt could not tell the
// writer's end.
func (s *Segment) openForWriter() error {
	if err := s.allocate(); err != nil {
		return err
	}
	if err := s.seal(s.fd, sealSize); err != nil {
		return err
	}
	return s.replaceFD(syscall.O_RDONLY)
}

// Copy makes a frozen segment with the same bytes as s. This is what is left to
// do when s could not be adopted: its writer may still write it, and from then on
// writes something that nobody reads. The caller holds a reference to s.
func (h *Heap) Copy(s *Segment, label string) (*Segment, error) {
	from, err := s.Readable()
	if err != nil {
		return nil, err
	}
	to, err := h.CreateUnzeroed(s.Len(), label)
	if err != nil {
		return nil, err
	}
	copyBytes(to.address, from, s.Len())
	return to.orGiveUp(to.Freeze())
}
