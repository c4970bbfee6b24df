package shm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
)

// state is what a segment is. It only ever moves on: building, granted or output and then granted, frozen, dropped.
type state int

const (
	building state = iota // the host writes
	live                  // anyone with a writer's descriptor writes
	output                // the same, until Settle
	packed                // the host writes parts of which nobody has been told: an arena, or what Append fills
	granted               // one worker writes
	frozen                // nobody writes
	dropped               // the host has let go
)

// Segment is one piece of shared memory. See the package's documentation for its life.
type Segment struct {
	heap   *Heap
	charge *charge
	arena  *arena // nil: it is none
	forks  uint64 // HostForks before its file was made
	id     uint64
	asked  int64
	size   int64
	label  string
	refs   atomic.Int64
	gone   func() // see OnGone

	mu    sync.Mutex
	state state
	reuse kind // what its memory can be used for when the last worker has let go, found out when it is dropped

	unfinished bool  // making it has failed: its pages may not all be there
	appended   int64 // bytes, of a segment that Append fills
	remotes    int
	sole       bool    // frozen by the proof that nobody else has it, in place of the seal that forbids writing for ever: see Adopt
	sealable   bool    // a memfd
	fd         int     // the host's description: O_RDWR, or O_RDONLY if granted or an output that is settled
	address    uintptr // first one given out; set once, before the segment is
	w          mapping // writable; after Freeze moved aside, still warm
	r          mapping // read-only, made when first asked for
	stale      mapping // private, where w was before Freeze
	aside      mapping // where PrepareFreeze has moved w's page tables
}

// ID tells segments of this process apart: never 0, never used again.
func (s *Segment) ID() uint64 { return s.id }

// Size is the number of bytes mapped: whole pages, at least one.
func (s *Segment) Size() int64 { return s.size }

// Len is the number of bytes asked for.
func (s *Segment) Len() int64 { return s.asked }

// Label is the name given at creation.
func (s *Segment) Label() string { return s.label }

// Shared tells that the segment is an arena: many arrays have slots in it.
func (s *Segment) Shared() bool { return s.arena != nil }

// Address is where the host's map was when the segment was made: what is
// written there before Freeze is the content. After Freeze it still can be read and
// written, but what is written stays private. 0 for a granted segment and an arena.
func (s *Segment) Address() uintptr { return s.address }

// Writable gives the address of the writable map while the segment is under
// construction or an output, and always if it is live.
func (s *Segment) Writable() (uintptr, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != building && s.state != live && s.state != output {
		return 0, false
	}
	return s.w.addr, true
}

// Readable gives the address of a map that the host can only read. It stays the
// same, and valid, until the segment is dropped. ErrDropped, *LimitError.
func (s *Segment) Readable() (uintptr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mapReadable(); err != nil {
		return 0, err
	}
	return s.r.addr, nil
}

// ReaderFD opens the segment O_RDONLY, for a reader. The kernel refuses to map
// that shared and writable. The caller closes it. ErrDropped, *LimitError.
func (s *Segment) ReaderFD() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == dropped {
		return -1, s.fail("open for a reader", ErrDropped)
	}
	if err := s.share(); err != nil {
		return -1, err
	}
	return s.reopen(syscall.O_RDONLY)
}

// WriterFD opens a live segment or an output for writing. The caller closes it. ErrNotLive,
// ErrDropped, *LimitError.
func (s *Segment) WriterFD() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case live, output:
		return s.reopen(syscall.O_RDWR)
	case dropped:
		return -1, s.fail("open for a writer", ErrDropped)
	}
	return -1, s.fail("open for a writer", ErrNotLive)
}

// PrivateMap maps the segment writable for this process alone: no copy is made but of
// the pages that are written. It keeps a reference until unmap is called, which may
// be called again. While the segment is not frozen, pages that were not written
// here show what others write. All of it counts in the budget, since all of it may be
// written. ErrDropped, *LimitError, *FullError.
func (s *Segment) PrivateMap() (addr uintptr, unmap func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == dropped {
		return 0, nil, s.fail("map privately", ErrDropped)
	}
	charge, err := s.heap.reserve(s.label, uint64(s.size))
	if err != nil {
		return 0, nil, err
	}
	m, err := makeMap(s.size, func() (uintptr, error) { return mapPrivate(s.fd, 0, s.size) })
	if err != nil {
		charge.abort()
		charge.release()
		return 0, nil, err
	}
	charge.ofCopy()
	s.Ref()
	var once sync.Once
	return m.addr, func() {
		once.Do(func() {
			m.close()
			charge.release()
			s.Unref()
		})
	}, nil
}

// Ref takes one more reference. The caller has one already, or knows who has.
func (s *Segment) Ref() {
	if !s.TryRef() {
		panic(fmt.Sprintf("shm: Ref of segment %d %q, which was dropped", s.id, s.label))
	}
}

// TryRef takes one more reference unless the segment was dropped.
func (s *Segment) TryRef() bool {
	for {
		n := s.refs.Load()
		if n <= 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Refs counts the references, as they were a moment ago.
func (s *Segment) Refs() int64 { return s.refs.Load() }

// Unref gives a reference back. The last one drops the segment: its addresses in
// the host are no longer valid.
func (s *Segment) Unref() {
	switch n := s.refs.Add(-1); {
	case n > 0:
		if s.arena != nil {
			s.heap.evacuate(s.arena)
		}
		return
	case n < 0:
		panic(fmt.Sprintf("shm: segment %d %q was let go once too often", s.id, s.label))
	}
	s.drop()
	if s.heap.options.OnDrop != nil {
		s.heap.options.OnDrop(s)
	}
	if s.gone != nil {
		s.gone()
	}
}

// OnGone has f called when the last reference has been given back, without any lock of this package held. Of whoever made the
// segment, before anyone else has it.
func (s *Segment) OnGone(f func()) { s.gone = f }

// AddRemote counts a worker that was given the segment. The caller has a reference.
func (s *Segment) AddRemote() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == dropped {
		panic(fmt.Sprintf("shm: segment %d %q was given to a worker after it was dropped", s.id, s.label))
	}
	s.remotes++
}

// DoneRemote takes back one AddRemote: that worker has unmapped the segment, or
// is dead. When the segment is dropped, the last of these gives its bytes back.
func (s *Segment) DoneRemote() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remotes--
	if s.remotes < 0 {
		panic(fmt.Sprintf("shm: more workers let go of segment %d %q than were given it", s.id, s.label))
	}
	if s.state == dropped {
		s.settle()
	}
}

// drop unmaps and closes, but for what may be used again.
func (s *Segment) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reuse = s.usableFor()
	s.state = dropped
	defer s.settle() // also when a map could not be unmapped, which is a bug
	if s.reuse == forNothing {
		defer s.closeWriter()
	}
	defer s.aside.close()
	defer s.stale.close()
	s.r.close()
}

// settle decides what becomes of the memory of a dropped segment. The bytes leave the budget only once
// no worker maps them. s.mu is held.
func (s *Segment) settle() {
	if s.remotes > 0 { // RETIRED has not come from all
		s.charge.retire()
		return
	}
	if s.heap.budget.recycler.keep(s) {
		return
	}
	defer s.charge.release()
	s.closeWriter()
}

func (s *Segment) closeWriter() {
	if s.fd >= 0 {
		closeFD(s.fd)
		s.fd = -1
	}
	s.w.close()
}

// mapReadable makes R. It maps a description of its own, O_RDONLY, on which no
// mprotect can make the map writable. s.mu is held.
func (s *Segment) mapReadable() error {
	if s.state == dropped {
		return s.fail("map", ErrDropped)
	}
	if s.r.addr != 0 {
		return nil
	}
	fd, err := s.reopen(syscall.O_RDONLY)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	s.r, err = makeMap(s.size, func() (uintptr, error) { return mapShared(fd, s.size, false) })
	return err
}

// makeFile makes the file, without pages. s is not shared yet.
func (s *Segment) makeFile() (err error) {
	s.fd, s.sealable, err = s.heap.memory()
	if err != nil {
		return err
	}
	return resize(s.fd, s.size)
}

// allocate fills the file with pages. s is not shared yet.
func (s *Segment) allocate() error {
	err := allocatePages(s.heap.allocate, s.fd, s.size, s.mayGoOn, s.charge.committed)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENOMEM) {
		return s.charge.refused(err)
	}
	return err
}

// clear writes zeros over what the memory held in its last life.
func (s *Segment) clear() error {
	for offset := int64(0); offset < s.size; offset += largestPiece {
		if err := s.heap.cancelled(); err != nil {
			return err
		}
		clearBytes(s.w.addr+uintptr(offset), min(largestPiece, s.size-offset))
	}
	return nil
}

// mayGoOn is asked before each piece of memory.
func (s *Segment) mayGoOn() error {
	if err := s.heap.cancelled(); err != nil {
		return err
	}
	return s.charge.stillFits()
}

// openForHost leaves the host with an O_RDWR description of its own and the
// writable map, full of pages, then seals. The seals come after the map: FUTURE_WRITE forbids
// all later writable maps, the host's own too.
func (s *Segment) openForHost(seals int) error {
	if err := s.replaceFD(syscall.O_RDWR); err != nil {
		return err
	}
	var err error
	s.w, err = makeMap(s.size, func() (uintptr, error) { return mapShared(s.fd, s.size, true) })
	if err != nil {
		return err
	}
	if large := s.heap.populate; large == 0 || s.size < large || !s.populate() {
		if err := s.allocate(); err != nil {
			return err
		}
	}
	if s.state != packed {
		s.address = s.w.addr
	}
	if s.state != output { // of which future writing is forbidden later
		seals |= sealSeal
	}
	return s.seal(s.fd, seals)
}

// reopen makes a new description of the file. s.mu is held, or s is not shared yet.
func (s *Segment) reopen(flags int) (int, error) {
	fd, err := reopen(s.fd, flags)
	if s.heap.gaveWay(err) {
		return reopen(s.fd, flags)
	}
	return fd, err
}

// replaceFD swaps the description for a new one of the same file.
func (s *Segment) replaceFD(flags int) error {
	fd, err := reopen(s.fd, flags)
	if err != nil {
		return err
	}
	closeFD(s.fd)
	s.fd = fd
	return nil
}

func (s *Segment) seal(fd, seals int) error {
	if !s.sealable {
		return nil
	}
	return seal(fd, seals)
}

// orGiveUp gives the segment, or, if err is not nil, undoes its creation. OnDrop is
// not called: nobody has seen it.
func (s *Segment) orGiveUp(err error) (*Segment, error) {
	if err == nil {
		return s, nil
	}
	s.refs.Store(0)
	s.charge.abort()
	s.unfinished = true
	s.drop()
	return nil, err
}

// fail says which segment an error is about.
func (s *Segment) fail(doing string, err error) error {
	return fmt.Errorf("shm: cannot %s segment %d %q: %w", doing, s.id, s.label, err)
}
