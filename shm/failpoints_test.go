//go:build linux && failpoints

package shm

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/internal/failpoint"
)

// fault is one way in which the kernel may refuse calls of a point.
type fault struct {
	point  failpoint.Point
	err    syscall.Errno
	unseen bool // nobody is to notice: the call is tried again, or can be done without
}

// faults lists what is plausible; see the manual pages.
var faults = append(
	refusals(failpoint.ShmMemfdCreate, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EPERM, syscall.ENOSYS),
	concat(
		refusals(failpoint.ShmReopen, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOENT, syscall.EACCES),
		unseen(failpoint.ShmReopen, syscall.EINTR),
		refusals(failpoint.ShmAddSeals, syscall.EPERM, syscall.EBUSY),
		unseen(failpoint.ShmGetFileLimit, syscall.EPERM),
		unseen(failpoint.ShmGetDescriptorLimit, syscall.EPERM),
		refusals(failpoint.ShmFtruncate, syscall.EFBIG, syscall.ENOMEM, syscall.EPERM, syscall.EIO),
		unseen(failpoint.ShmFtruncate, syscall.EINTR),
		refusals(failpoint.ShmFallocate, syscall.ENOSPC, syscall.ENOMEM, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EPERM),
		unseen(failpoint.ShmFallocate, syscall.EINTR),
		refusals(failpoint.ShmMmapShared, syscall.ENOMEM, syscall.EAGAIN, syscall.ENODEV, syscall.EPERM),
		refusals(failpoint.ShmMmapPrivate, syscall.ENOMEM, syscall.EAGAIN, syscall.ENODEV, syscall.EPERM),
		refusals(failpoint.ShmMmapAnonymous, syscall.ENOMEM, syscall.EAGAIN),
		refusals(failpoint.ShmPread, syscall.EIO),
		unseen(failpoint.ShmPread, syscall.EINTR),
		unseen(failpoint.ShmMadvise, syscall.EINVAL, syscall.ENOMEM, syscall.EAGAIN),
		unseen(failpoint.ShmPopulate, syscall.EINVAL, syscall.EFAULT),
		refusals(failpoint.ShmPopulate, syscall.ENOMEM), // while the kernel is asked for its features
		refusals(failpoint.ShmMremap, syscall.ENOMEM, syscall.EAGAIN, syscall.EINVAL),
		unseen(failpoint.ShmClose, syscall.EINTR, syscall.EIO),
		refusals(failpoint.ShmSetSignal, syscall.EINVAL, syscall.ENOMEM),
		refusals(failpoint.ShmSetLease, syscall.EAGAIN, syscall.EACCES, syscall.ENOMEM),
		refusals(failpoint.ShmGiveLeaseBack, syscall.EAGAIN, syscall.ENOMEM),
		refusals(failpoint.ShmOpenFile, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR, syscall.ENOENT, syscall.EACCES),
		refusals(failpoint.ShmReadFile, syscall.ENOMEM, syscall.EIO, syscall.ENODEV),
		unseen(failpoint.ShmReadFile, syscall.EINTR),
	)...)

func refusals(p failpoint.Point, errnos ...syscall.Errno) (all []fault) {
	for _, errno := range errnos {
		all = append(all, fault{point: p, err: errno})
	}
	return all
}

func unseen(p failpoint.Point, errnos ...syscall.Errno) []fault {
	all := refusals(p, errnos...)
	for i := range all {
		all[i].unseen = true
	}
	return all
}

func concat(lists ...[]fault) (all []fault) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// A heap's life with each system call failing in turn, each time the scenario makes it and in each plausible way:
// an operation succeeds or gives a typed error with the kernel's reason, nothing is left, and what comes after works.
func TestFailpoints(t *testing.T) {
	t.Cleanup(failpoint.Disarm)
	watch(t)
	life := &heapLife{t: t}
	require.Empty(t, life.live(), "without faults")
	var table failpoint.Table
	for _, f := range faults {
		t.Run(fmt.Sprintf("%s %v", f.point, f.err), func(t *testing.T) {
			life := &heapLife{t: t}
			// Until a call with that number is no longer made.
			for nth := uint64(1); life.fails(f, nth, &table); nth++ {
			}
		})
	}
	life.sandboxWithoutMemfd(&table)
	life.mapsThatCannotBeUnmapped(&table)
	t.Logf("\n%s", table.Of("shm"))
	for _, p := range failpoint.Of("shm") {
		require.NotZero(t, failpoint.Hits(p), "%s was never passed", p)
		require.NotZero(t, table.Failed(p), "%s has never failed", p)
	}
}

// heapLife is the scenario: everything that one does with a heap.
type heapLife struct {
	t    *testing.T
	errs []error
}

// fails runs the scenario with one failure, and reports whether it came to that.
func (l *heapLife) fails(f fault, nth uint64, table *failpoint.Table) bool {
	l.t.Helper()
	before := leftovers()
	plan := failpoint.Arm(f.point, nth, 1, f.err)
	errs := l.live()
	failpoint.Disarm()
	what := fmt.Sprintf("%s, call %d: %v", f.point, nth, f.err)
	require.Equal(l.t, before, leftovers(), "left behind after %s", what)
	if plan.Fired() == 0 {
		require.Empty(l.t, errs, what)
		return false
	}
	end := failpoint.Survived
	if len(errs) > 0 {
		end = failpoint.Refused
		require.False(l.t, f.unseen, "%s was noticed: %v", what, errs)
	}
	table.Add(f.point, plan, end)
	for _, err := range errs {
		require.ErrorIs(l.t, err, f.err, "%s: the kernel's reason is missing", what)
	}
	require.Empty(l.t, l.live(), "the next time, after %s", what)
	return true
}

// live does everything once, with a kernel that has not been asked for its features yet. What fails is
// noted, and the rest is done.
func (l *heapLife) live() []error {
	l.t.Helper()
	l.errs = nil
	probe = prober{}
	if err := Ready(); l.bad(err) {
		return l.errs // as engine.Open does
	}
	h := NewHeap(HeapOptions{})
	l.written(h)
	l.populated(h)
	l.granted(h)
	l.settled(h)
	l.shared(h)
	l.small(h)
	l.page()
	l.bad(descriptorLimitKnown())
	require.Positive(l.t, maxMappings())
	h.Close() // what it keeps for use again
	require.Zero(l.t, h.Stats().InUse)
	h.Close() // what it keeps for reuse
	return l.errs
}

// bad notes an error, which must be of a known type.
func (l *heapLife) bad(err error) bool {
	l.t.Helper()
	if err == nil {
		return false
	}
	typed := errors.As(err, new(*LimitError)) || errors.As(err, new(*KernelError)) || errors.As(err, new(*FullError))
	require.True(l.t, typed, "%T is not a type that callers know: %v", err, err)
	l.errs = append(l.errs, err)
	return true
}

const lifeSize = 1 << 20 // large enough for the machine to be looked at each time

// written: the host writes, publishes, reads and gives away.
func (l *heapLife) written(h *Heap) {
	s, err := h.Create(lifeSize, "written")
	if l.bad(err) {
		return
	}
	defer s.Unref()
	view(s.Address(), s.Size())[7] = 7
	if err := s.Freeze(); l.bad(err) {
		w, ok := s.Writable()
		require.True(l.t, ok, "what cannot be frozen stays writable")
		require.Equal(l.t, s.Address(), w)
		view(w, s.Size())[8] = 8
		return
	}
	require.Equal(l.t, byte(7), view(s.Address(), s.Size())[7], "pointers stay valid")
	if r, err := s.Readable(); !l.bad(err) {
		require.Equal(l.t, byte(7), view(r, s.Size())[7])
	}
	if addr, unmap, err := s.PrivateMap(); !l.bad(err) {
		require.Equal(l.t, byte(7), view(addr, s.Size())[7])
		unmap()
	}
	if fd, err := s.ReaderFD(); !l.bad(err) {
		closeFD(fd)
	}
}

// populated: the same, large enough for its map to be populated, or for fallocate to do it all.
func (l *heapLife) populated(h *Heap) {
	if h.populate > 0 {
		h.populate = lifeSize
	}
	s, err := h.CreateLive(lifeSize, "populated")
	h.populate = 0
	if l.bad(err) {
		return
	}
	w, _ := s.Writable()
	require.Zero(l.t, view(w, s.Size())[lifeSize-1])
	s.Unref()
}

// granted: someone else writes, and the host takes over or copies.
func (l *heapLife) granted(h *Heap) {
	s, writer, _, err := h.Grant(lifeSize, "granted")
	if l.bad(err) {
		return
	}
	m, err := makeMap(s.Size(), func() (uintptr, error) { return mapShared(writer, s.Size(), true) })
	closeFD(writer)
	if l.bad(err) {
		s.Unref()
		return
	}
	view(m.addr, s.Size())[7] = 7
	m.close()
	l.takenOver(h, s, s.Adopt())
}

// settled: both sides write, until it is published.
func (l *heapLife) settled(h *Heap) {
	s, err := h.CreateOutput(lifeSize, "output")
	if l.bad(err) {
		return
	}
	view(s.Address(), s.Size())[7] = 7
	writer, err := s.WriterFD()
	if !l.bad(err) {
		closeFD(writer)
	}
	l.takenOver(h, s, s.Settle())
}

// takenOver: what others have written is read, in place or as a copy. It lets go of the segment.
func (l *heapLife) takenOver(h *Heap, s *Segment, err error) {
	defer func() { s.Unref() }()
	switch {
	case errors.Is(err, ErrNoProof), errors.Is(err, ErrStillWritten):
		private, err := h.Copy(s, "copy")
		if l.bad(err) {
			return
		}
		s.Unref()
		s = private
	case l.bad(err):
		return
	}
	if r, err := s.Readable(); !l.bad(err) {
		require.Equal(l.t, byte(7), view(r, s.Size())[7])
	}
}

// shared: both sides write.
func (l *heapLife) shared(h *Heap) {
	s, err := h.CreateLive(1, "live")
	if l.bad(err) {
		return
	}
	defer s.Unref()
	if fd, err := s.WriterFD(); !l.bad(err) {
		closeFD(fd)
	}
}

// small: an array that is written in a draft and published in an arena, and a small result.
func (l *heapLife) small(h *Heap) {
	d, err := h.Draft(100, "draft")
	if l.bad(err) {
		return
	}
	defer d.Release()
	view(d.Address(), 100)[7] = 7
	slot, err := h.Reserve(100, "slot")
	if l.bad(err) {
		return
	}
	defer slot.Unref()
	slot.Write(d.Address())
	s, offset := slot.Pin()
	defer s.Unref()
	if r, err := s.Readable(); !l.bad(err) {
		require.Equal(l.t, byte(7), view(r, s.Size())[offset+7])
	}
	packed, err := h.Pack(s, "packed")
	if !l.bad(err) {
		packed.Unref()
	}
}

func (l *heapLife) page() {
	p, err := NewPage()
	if l.bad(err) {
		return
	}
	require.Zero(l.t, p.Load())
	p.Close()
}

// descriptorLimitKnown asks for the limit that an error names; that the kernel does not tell is no error.
func descriptorLimitKnown() error {
	if limit := (*LimitError)(nil); !errors.As(descriptorLimit(syscall.EMFILE), &limit) {
		return errors.New("EMFILE is not taken for a limit")
	}
	return nil
}

// sandboxWithoutMemfd: where memfd is forbidden there are unnamed files, and these may fail too.
func (l *heapLife) sandboxWithoutMemfd(table *failpoint.Table) {
	l.t.Helper()
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.EOPNOTSUPP, syscall.ENOENT, syscall.EACCES, syscall.ENOSPC} {
		for nth := uint64(1); ; nth++ {
			before := leftovers()
			failpoint.Arm(failpoint.ShmMemfdCreate, 1, math.MaxInt32, syscall.EPERM)
			plan := failpoint.Arm(failpoint.ShmOpenTmpfile, nth, 1, errno)
			errs := l.live()
			failpoint.Disarm()
			require.Equal(l.t, before, leftovers())
			if plan.Fired() == 0 {
				require.Empty(l.t, errs, "unnamed files do as well")
				break
			}
			end := failpoint.Survived // an arena is tried in two sizes
			if len(errs) > 0 {
				end = failpoint.Refused
			}
			table.Add(failpoint.ShmOpenTmpfile, plan, end)
			for _, err := range errs {
				require.ErrorIs(l.t, err, errno)
			}
		}
	}
	require.Empty(l.t, l.live())
}

// mapsThatCannotBeUnmapped: that is a bug of this package's, so it panics, and the callers' guard poisons the
// engine. All else is given back nevertheless.
func (l *heapLife) mapsThatCannotBeUnmapped(table *failpoint.Table) {
	l.t.Helper()
	h := NewHeap(HeapOptions{})
	h.Close()                               // it keeps nothing for reuse
	for nth := uint64(1); nth <= 3; nth++ { // the writable map, the read-only and the private one
		before := leftovers()
		s, err := h.Create(1, "unmappable")
		require.NoError(l.t, err)
		require.NoError(l.t, s.Freeze())
		plan := failpoint.Arm(failpoint.ShmMunmap, nth, 1, syscall.EINVAL)
		require.PanicsWithValue(l.t, "shm: unmap: invalid argument", s.Unref)
		failpoint.Disarm()
		table.Add(failpoint.ShmMunmap, plan, failpoint.Broken)
		mappings.release() // the books have it still; the test's munmap has taken place
		require.Equal(l.t, before, leftovers())
	}
}
