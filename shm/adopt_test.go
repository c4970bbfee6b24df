//go:build linux

package shm

import (
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func needsLeases(t *testing.T) {
	t.Helper()
	if !Probe().Leases {
		t.Skip("this kernel has no file leases: Adopt says ErrNoProof, and outputs are copied")
	}
}

func TestAdoptIsRefusedWhileTheWriterHasItMapped(t *testing.T) {
	needsLeases(t)
	s, writer := grant(t, heapFor(t), 1)
	require.ErrorIs(t, s.Adopt(), ErrStillWritten, "the host itself still has the writer's descriptor")
	child := start(t, "writer", writer)
	child.hears("mapped")
	closeFD(writer)

	require.ErrorIs(t, s.Adopt(), ErrStillWritten)
	r, err := s.Readable()
	require.NoError(t, err)
	child.says("")
	child.hears("written")
	assert.EqualValues(t, 1, view(r, 1)[0], "the host reads what the writer writes")

	_, err = child.ends()
	require.NoError(t, err)
	require.NoError(t, s.Adopt())
	require.NoError(t, s.Adopt(), "again")
	require.NoError(t, s.Freeze(), "an adopted segment is frozen")
	again, err := s.Readable()
	require.NoError(t, err)
	assert.Equal(t, r, again, "its address stays")
}

func TestAdoptIsGrantedOnceTheWriterHasUnmapped(t *testing.T) {
	needsLeases(t)
	s, writer := grant(t, heapFor(t), 1)
	addr, err := mapShared(writer, s.Size(), true)
	require.NoError(t, err)
	closeFD(writer)
	view(addr, 1)[0] = 7
	require.ErrorIs(t, s.Adopt(), ErrStillWritten)

	// What a worker does at the end of its task: a private map in place of the writable one.
	reader, err := s.ReaderFD()
	require.NoError(t, err)
	_, err = mapPrivate(reader, addr, s.Size())
	require.NoError(t, err)
	closeFD(reader)
	require.NoError(t, s.Adopt())

	view(addr, 1)[0] = 8
	r, err := s.Readable()
	require.NoError(t, err)
	assert.EqualValues(t, 7, view(r, 1)[0])
	require.NoError(t, unmap(addr, s.Size()))
}

func TestAdoptedSegmentCannotBeOpenedForWritingAgain(t *testing.T) {
	needsLeases(t)
	if !Probe().FutureWrite {
		t.Skip("this kernel has no F_SEAL_FUTURE_WRITE")
	}
	s, writer := grant(t, heapFor(t), 1)
	again, err := dup(writer)
	require.NoError(t, err)
	closeFD(writer)
	closeFD(again)
	require.NoError(t, s.Adopt())

	reader, err := s.ReaderFD()
	require.NoError(t, err)
	defer closeFD(reader)
	reopened, err := reopen(reader, syscall.O_RDWR)
	require.NoError(t, err)
	defer closeFD(reopened)
	_, err = mapShared(reopened, s.Size(), true)
	require.ErrorIs(t, err, unix.EPERM)
	_, err = unix.Write(reopened, []byte{1})
	require.ErrorIs(t, err, unix.EPERM)
}

// A worker may hand its memory on: to a child that it forked…
func TestAdoptIsRefusedWhileOnlyAForkedChildMapsIt(t *testing.T) {
	needsLeases(t)
	s, writer := grant(t, heapFor(t), 1)
	addr, err := mapShared(writer, s.Size(), true)
	require.NoError(t, err)
	closeFD(writer)
	pid := forkIdle(t)
	require.NoError(t, unmap(addr, s.Size()))
	require.ErrorIs(t, s.Adopt(), ErrStillWritten)
	endIdle(t, pid)
	require.NoError(t, s.Adopt())
}

// …or to one that it started, of which nothing is known at all.
func TestAdoptIsRefusedWhileOnlyAnotherProgramHoldsTheDescriptor(t *testing.T) {
	needsLeases(t)
	s, writer := grant(t, heapFor(t), 1)
	child := start(t, "holder", writer)
	closeFD(writer)
	child.hears("holding")
	require.ErrorIs(t, s.Adopt(), ErrStillWritten)
	_, err := child.ends()
	require.NoError(t, err)
	require.NoError(t, s.Adopt())
}

func TestAdoptIsRefusedWhileTheDescriptorWaitsInASocket(t *testing.T) {
	needsLeases(t)
	s, writer := grant(t, heapFor(t), 1)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(writer), nil, 0))
	closeFD(writer)
	closeFD(pair[0])
	require.ErrorIs(t, s.Adopt(), ErrStillWritten)
	closeFD(pair[1])
	require.NoError(t, s.Adopt())
}

func TestCopyOfWhatCannotBeAdopted(t *testing.T) {
	needsLeases(t)
	h := heapFor(t)
	s, writer := grant(t, h, 10_000)
	child := start(t, "writer", writer)
	closeFD(writer)
	child.hears("mapped")
	child.says("")
	child.hears("written")
	require.ErrorIs(t, s.Adopt(), ErrStillWritten)

	copied, err := h.Copy(s, "copied")
	require.NoError(t, err)
	defer copied.Unref()
	child.says("")
	child.hears("written")
	from, err := s.Readable()
	require.NoError(t, err)
	r, err := copied.Readable()
	require.NoError(t, err)
	assert.EqualValues(t, 2, view(from, s.Len())[9_999], "the writer goes on")
	for i, b := range view(r, copied.Len()) {
		require.EqualValues(t, 1, b, "byte %d", i)
	}
	assert.Equal(t, s.Len(), copied.Len())
	assert.Equal(t, "copied", copied.Label())
	assert.NotEqual(t, s.ID(), copied.ID())
	_, writable := copied.Writable()
	assert.False(t, writable)
}

func TestAdoptWithoutLeases(t *testing.T) {
	h := heapFor(t)
	h.features.Leases = false
	s, writer := grant(t, h, 1)
	closeFD(writer)
	require.ErrorIs(t, s.Adopt(), ErrNoProof)
	require.ErrorIs(t, s.Freeze(), ErrNotAdopted)
}

func TestAdoptIsOnlyForGranted(t *testing.T) {
	h := heapFor(t)
	s := create(t, h, 1)
	require.ErrorIs(t, s.Adopt(), ErrNotGranted)
	everyone, err := h.CreateLive(1, "live")
	require.NoError(t, err)
	defer everyone.Unref()
	require.ErrorIs(t, everyone.Adopt(), ErrNotGranted)
}

// Why Grant gives its writer a new description, and the memfd's first one is closed:
// the kernel does not count that one as a writer.
func TestLeaseDoesNotSeeTheFirstDescription(t *testing.T) {
	needsLeases(t)
	watch(t)
	first, err := newMemfd()
	require.NoError(t, err)
	defer closeFD(first)
	require.NoError(t, resize(first, 4096))
	addr, err := mapShared(first, 4096, true)
	require.NoError(t, err)
	defer func() { require.NoError(t, unmap(addr, 4096)) }()
	reader, err := reopen(first, syscall.O_RDONLY)
	require.NoError(t, err)
	defer closeFD(reader)
	assert.NoError(t, readLease(reader), "granted, although it is mapped writable")

	second, err := reopen(first, syscall.O_RDWR)
	require.NoError(t, err)
	assert.ErrorIs(t, readLease(reader), ErrStillWritten)
	closeFD(second)
	assert.NoError(t, readLease(reader))
}

// Someone who opens the file while the lease is held makes the kernel send a signal.
func TestLeaseSignal(t *testing.T) {
	needsLeases(t)
	for name, killed := range map[string]bool{"lease": false, "lease by SIGIO": true} {
		t.Run(name, func(t *testing.T) {
			s, writer := grant(t, heapFor(t), 1)
			closeFD(writer)
			reader, err := s.ReaderFD()
			require.NoError(t, err)
			child := start(t, name, reader)
			closeFD(reader)
			said, err := child.ends()
			if !killed {
				require.NoError(t, err)
				require.Equal(t, "survived\n", said)
				return
			}
			require.Error(t, err)
			status := child.cmd.ProcessState.Sys().(syscall.WaitStatus)
			require.True(t, status.Signaled() && status.Signal() == syscall.SIGIO, "ended by %v", err)
		})
	}
}

// forkIdle makes a forked child, which has all mappings and descriptors of the
// test and does nothing until it is ended.
//
//go:norace
func forkIdle(t *testing.T) (pid int) {
	t.Helper()
	runtime.LockOSThread() // the child goes when this thread does
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if child == 0 && errno == 0 {
		// One thread of a Go program, without its runtime: nothing but system calls.
		unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
		for {
			unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	require.Zero(t, errno)
	return int(child)
}

func endIdle(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	_, err := unix.Wait4(pid, nil, 0, nil)
	require.NoError(t, err)
	runtime.UnlockOSThread()
}
