//go:build linux

package shm

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// result grants a segment, fills it as a worker does, and lets go of it there.
func result(t *testing.T, h *Heap, value byte) (s *Segment, used bool) {
	t.Helper()
	s, writer, used, err := h.Grant(segmentSize, t.Name())
	require.NoError(t, err)
	writeThrough(t, s, writer, value)
	return s, used
}

func writeThrough(t *testing.T, s *Segment, writer int, value byte) {
	t.Helper()
	address, err := mapShared(writer, s.Size(), true)
	require.NoError(t, err)
	closeFD(writer)
	copy(view(address, segmentSize), bytes.Repeat([]byte{value}, segmentSize))
	require.NoError(t, unmap(address, s.Size()))
}

func TestAResultThatNobodyElseWasGivenIsGrantedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	first, used := result(t, h, 1)
	assert.False(t, used)
	require.NoError(t, first.Adopt())
	assert.ErrorIs(t, func() error { _, err := first.WriterFD(); return err }(), ErrNotLive)
	r, err := first.Readable()
	require.NoError(t, err)
	assert.EqualValues(t, 1, view(r, segmentSize)[segmentSize-1])
	first.Unref()
	assert.EqualValues(t, segmentSize, h.Stats().FreeList)
	create(t, h, segmentSize)
	assert.Zero(t, h.Stats().Recycled, "the host has no map of it that it could write")

	again, writer, used, err := h.Grant(segmentSize-5000, "again")
	require.NoError(t, err)
	assert.True(t, used)
	assert.NotEqual(t, first.ID(), again.ID())
	assert.EqualValues(t, segmentSize-5000, again.Len())
	assert.EqualValues(t, 1, h.Stats().Recycled)
	require.ErrorIs(t, again.Adopt(), ErrStillWritten)
	writeThrough(t, again, writer, 2)
	require.NoError(t, again.Adopt())
	r, err = again.Readable()
	require.NoError(t, err)
	assert.Equal(t, bytes.Repeat([]byte{2}, segmentSize), view(r, segmentSize))
	again.Unref()
}

// Whoever has a descriptor could open the file for writing.
func TestAResultIsSealedBeforeAnybodyElseHasIt(t *testing.T) {
	needsWriteLeases(t)
	if !Probe().FutureWrite {
		t.Skip("this kernel has no F_SEAL_FUTURE_WRITE")
	}
	for name, share := range map[string]func(*Segment) error{
		"published": (*Segment).Freeze,
		"published with others": func(s *Segment) error {
			defer s.AbandonFreeze()
			return s.PrepareFreeze()
		},
		"given to a worker": func(s *Segment) error {
			reader, err := s.ReaderFD()
			closeFD(reader)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := heapFor(t)
			s, _ := result(t, h, 1)
			require.NoError(t, s.Adopt())
			require.NoError(t, share(s))
			reopened, err := reopen(s.fd, syscall.O_RDWR)
			require.NoError(t, err)
			_, err = mapShared(reopened, s.Size(), true)
			require.ErrorIs(t, err, unix.EPERM)
			closeFD(reopened)
			s.Unref()
			assert.Zero(t, h.Stats().FreeList, "what cannot be written is not used again")
		})
	}
}

func TestAResultThatSomebodySeesIsNotGrantedAgain(t *testing.T) {
	needsWriteLeases(t)
	fork := hostForks(t)
	for name, see := range map[string]func(*testing.T, *Segment) func(){
		"its writer, to read": func(t *testing.T, s *Segment) func() {
			reader, err := reopen(s.fd, syscall.O_RDONLY)
			require.NoError(t, err)
			address, err := mapPrivate(reader, 0, s.Size())
			require.NoError(t, err)
			closeFD(reader)
			return func() { require.NoError(t, unmap(address, s.Size())) }
		},
		"a socket": func(t *testing.T, s *Segment) func() {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			reader, err := reopen(s.fd, syscall.O_RDONLY)
			require.NoError(t, err)
			require.NoError(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(reader), nil, 0))
			closeFD(reader)
			return func() { closeFD(pair[0]); closeFD(pair[1]) }
		},
		"a child of the host": func(*testing.T, *Segment) func() { fork(); return func() {} },
	} {
		t.Run(name, func(t *testing.T) {
			h := heapFor(t)
			before, _ := result(t, h, 1) // who sees it before it is adopted
			end := see(t, before)
			require.NoError(t, before.Adopt())
			before.Unref()
			assert.Zero(t, h.Stats().FreeList)
			end()
			after, used := result(t, h, 1) // and who sees it when it goes
			require.False(t, used)
			require.NoError(t, after.Adopt())
			end = see(t, after)
			after.Unref()
			assert.Zero(t, h.Stats().FreeList)
			end()
		})
	}
}

// Making it stopped halfway: neither are its pages all there, nor were its bytes counted.
func TestAGrantThatHasFailedIsNotGrantedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	h.memory = func() (int, bool, error) { fd, err := newTmpfile("/dev/shm"); return fd, false, err } // as where memfd is forbidden
	pieces := 0
	h.allocate = func(fd int, offset, n int64) error {
		if pieces++; pieces > 1 {
			return unix.ENOSPC
		}
		return fallocate(fd, offset, n)
	}
	_, _, _, err := h.Grant(4*largestPiece, "too much")
	require.ErrorAs(t, err, new(*FullError))
	assert.Zero(t, h.Stats().FreeList)
	assert.Zero(t, h.Stats().InUse)
}

func TestSealingAResultGivesBackWhatIsKeptWhenDescriptorsRunOut(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	s, _ := result(t, h, 1)
	defer s.Unref()
	require.NoError(t, s.Adopt())
	other, _ := result(t, h, 1)
	require.NoError(t, other.Adopt())
	other.Unref()
	require.NotZero(t, h.Stats().FreeList)
	full := fillDescriptors(t)
	err := s.Freeze()
	for _, fd := range full {
		closeFD(fd)
	}
	require.NoError(t, err)
	assert.Zero(t, h.Stats().FreeList)
}

// A task that ends without a result may have its memory mapped for longer.
func TestWhatWasGrantedInVainIsGrantedAgainOnceItsWriterHasLetGo(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	s, writer, _, err := h.Grant(segmentSize, "in vain")
	require.NoError(t, err)
	s.AddRemote()
	s.Unref()
	assert.Zero(t, h.Stats().FreeList)
	closeFD(writer)
	s.DoneRemote()
	assert.EqualValues(t, segmentSize, h.Stats().FreeList)

	s, writer, _, err = h.Grant(segmentSize, "in vain")
	require.NoError(t, err)
	s.Unref() // as if it had been acknowledged, and is in use still
	assert.Zero(t, h.Stats().FreeList)
	closeFD(writer)
}

// fillDescriptors leaves this process without one to spare.
func fillDescriptors(t *testing.T) (taken []int) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	t.Cleanup(func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) })
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: limit.Max}))
	for {
		fd, err := dup(0)
		if err != nil {
			return taken
		}
		taken = append(taken, fd)
	}
}
