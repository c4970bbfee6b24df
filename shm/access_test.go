//go:build linux

package shm

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Another process that was given a reader's descriptor tries everything.
func TestReaderCannotWrite(t *testing.T) {
	if !Probe().FutureWrite {
		t.Skip("this kernel has no F_SEAL_FUTURE_WRITE: a reader that opens the file again is not stopped")
	}
	h := heapFor(t)
	s := create(t, h, 10_000)
	w, _ := s.Writable()
	view(w, 1)[0] = 42
	require.NoError(t, s.Freeze())

	reader, err := s.ReaderFD()
	require.NoError(t, err)
	child := start(t, "reader", reader)
	closeFD(reader)
	said, err := child.ends()
	require.NoError(t, err)
	assert.Equal(t, strings.Join([]string{
		"first byte 42",
		"writable map: permission denied",
		"mprotect: permission denied",
		"write: bad file descriptor",
		"truncate: invalid argument",
		"writable map of the file opened again: operation not permitted",
		"write to the file opened again: operation not permitted",
		"truncate of the file opened again: operation not permitted",
		"private map: 43 shared: 42",
		"first byte 42",
		"",
	}, "\n"), said)
	r, err := s.Readable()
	require.NoError(t, err)
	assert.EqualValues(t, 42, view(r, 1)[0])
}

// The host's own view of what it published is no better: a C extension that ignores
// numpy's flag meets the kernel.
func TestHostReadsThroughAMapThatCannotBeMadeWritable(t *testing.T) {
	h := heapFor(t)
	s := create(t, h, 1)
	require.NoError(t, s.Freeze())
	everyone, err := h.CreateLive(1, "live")
	require.NoError(t, err)
	defer everyone.Unref()
	for _, s := range []*Segment{s, everyone} {
		r, err := s.Readable()
		require.NoError(t, err)
		require.ErrorIs(t, unix.Mprotect(view(r, s.Size()), unix.PROT_READ|unix.PROT_WRITE), unix.EACCES)
	}
}

// A reader of memory that a worker writes has only the description between it and
// writing: there is no seal yet.
func TestReaderOfGrantedCannotWrite(t *testing.T) {
	h := heapFor(t)
	s, writer := grant(t, h, 1)
	defer closeFD(writer)
	reader, err := s.ReaderFD()
	require.NoError(t, err)
	defer closeFD(reader)
	_, err = mapShared(reader, s.Size(), true)
	require.ErrorIs(t, err, unix.EACCES)
	r, err := s.Readable()
	require.NoError(t, err)
	require.ErrorIs(t, unix.Mprotect(view(r, s.Size()), unix.PROT_READ|unix.PROT_WRITE), unix.EACCES)
}

func TestDescriptorsAreNotInherited(t *testing.T) {
	h := heapFor(t)
	s, writer := grant(t, h, 1)
	defer closeFD(writer)
	reader, err := s.ReaderFD()
	require.NoError(t, err)
	defer closeFD(reader)
	page, err := NewPage()
	require.NoError(t, err)
	defer page.Close()
	for _, fd := range []int{s.fd, writer, reader, page.FD()} {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		require.NoError(t, err)
		assert.NotZero(t, flags&unix.FD_CLOEXEC)
	}
}

func TestDescriptorsHaveTheAccessTheyAreFor(t *testing.T) {
	h := heapFor(t)
	s, writer := grant(t, h, 1)
	defer closeFD(writer)
	everyone, err := h.CreateLive(1, "live")
	require.NoError(t, err)
	defer everyone.Unref()
	shared, err := everyone.WriterFD()
	require.NoError(t, err)
	defer closeFD(shared)
	reader, err := everyone.ReaderFD()
	require.NoError(t, err)
	defer closeFD(reader)
	for fd, want := range map[int]int{
		s.fd: syscall.O_RDONLY, writer: syscall.O_RDWR, everyone.fd: syscall.O_RDWR,
		shared: syscall.O_RDWR, reader: syscall.O_RDONLY,
	} {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		assert.Equal(t, want, flags&unix.O_ACCMODE)
	}
}

func TestNobodyChangesTheSize(t *testing.T) {
	h := heapFor(t)
	s := create(t, h, 8192)
	everyone, err := h.CreateLive(8192, "live")
	require.NoError(t, err)
	defer everyone.Unref()
	given, writer := grant(t, h, 8192)
	defer closeFD(writer)
	require.EqualValues(t, 8192, given.Size())
	for _, fd := range []int{s.fd, everyone.fd, writer} {
		assert.ErrorIs(t, unix.Ftruncate(fd, 4096), unix.EPERM)
		assert.ErrorIs(t, unix.Ftruncate(fd, 16384), unix.EPERM)
	}
}

func TestLiveIsWrittenByOthersAndSeenAtOnce(t *testing.T) {
	h := heapFor(t)
	s, err := h.CreateLive(10_000, "live")
	require.NoError(t, err)
	defer s.Unref()
	w, writable := s.Writable()
	require.True(t, writable)
	require.Equal(t, s.Address(), w)

	writer, err := s.WriterFD()
	require.NoError(t, err)
	child := start(t, "writer", writer)
	closeFD(writer)
	child.hears("mapped")
	child.says("")
	child.hears("written")
	assert.EqualValues(t, 1, view(w, s.Len())[9_999])
	require.NoError(t, s.Freeze(), "does nothing")
	view(w, 1)[0] = 9
	child.says("")
	child.hears("written")
	r, err := s.Readable()
	require.NoError(t, err)
	assert.EqualValues(t, 10, view(r, 1)[0])
	assert.EqualValues(t, 2, view(r, s.Len())[9_999])
	_, err = child.ends()
	require.NoError(t, err)
}

func TestWriterFDIsOnlyForLive(t *testing.T) {
	h := heapFor(t)
	s := create(t, h, 1)
	given, writer := grant(t, h, 1)
	closeFD(writer)
	for _, s := range []*Segment{s, given} {
		_, err := s.WriterFD()
		require.ErrorIs(t, err, ErrNotLive)
	}
}

func TestPrivateMapIsWritableAndPrivate(t *testing.T) {
	var droppedIDs []uint64
	h := heapWith(t, HeapOptions{OnDrop: func(s *Segment) { droppedIDs = append(droppedIDs, s.ID()) }})
	s, err := h.Create(3*4096, "result")
	require.NoError(t, err)
	w, _ := s.Writable()
	view(w, s.Size())[5000] = 1
	require.NoError(t, s.Freeze())
	addr, unmapIt, err := s.PrivateMap()
	require.NoError(t, err)
	other, unmapOther, err := s.PrivateMap()
	require.NoError(t, err)
	view(addr, s.Size())[5000]++
	r, err := s.Readable()
	require.NoError(t, err)
	assert.EqualValues(t, 2, view(addr, s.Size())[5000])
	assert.EqualValues(t, 1, view(r, s.Size())[5000])
	assert.EqualValues(t, 1, view(other, s.Size())[5000])

	s.Unref()
	unmapOther()
	assert.Empty(t, droppedIDs, "a private map keeps its segment")
	assert.EqualValues(t, 2, view(addr, s.Size())[5000])
	unmapIt()
	unmapIt()
	assert.Equal(t, []uint64{s.ID()}, droppedIDs)
}
