//go:build linux

package shm

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// outputOf makes an output and a writable map of it, as a worker has one.
func outputOf(t *testing.T, h *Heap) (s *Segment, writer uintptr, endWriting func()) {
	t.Helper()
	s, err := h.CreateOutput(10_000, "output")
	require.NoError(t, err)
	t.Cleanup(s.Unref)
	fd, err := s.WriterFD()
	require.NoError(t, err)
	writer, err = mapShared(fd, s.Size(), true)
	require.NoError(t, err)
	closeFD(fd)
	ended := false
	endWriting = func() {
		if !ended {
			ended = true
			require.NoError(t, unmap(writer, s.Size()))
		}
	}
	t.Cleanup(endWriting)
	return s, writer, endWriting
}

func TestAnOutputIsWrittenByAllUntilItIsSettled(t *testing.T) {
	if !Probe().Leases {
		t.Skip("this kernel has no leases: outputs are copied")
	}
	h := heapFor(t)
	s, writer, endWriting := outputOf(t, h)
	here, writable := s.Writable()
	require.True(t, writable)
	view(here, 2)[0] = 1
	view(writer, 2)[1] = 2
	assert.Equal(t, []byte{1, 2}, view(here, 2))
	require.ErrorIs(t, s.Freeze(), ErrNotSettled)
	require.ErrorIs(t, s.Adopt(), ErrNotGranted)

	require.ErrorIs(t, s.Settle(), ErrStillWritten)
	view(here, 2)[0] = 7 // the host's own writing has ended
	view(writer, 2)[1] = 3
	reader, err := s.Readable()
	require.NoError(t, err)
	assert.Equal(t, []byte{1, 3}, view(reader, 2))
	_, err = s.WriterFD()
	require.ErrorIs(t, err, ErrNotLive, "nobody else becomes a writer")
	_, writable = s.Writable()
	assert.False(t, writable)

	endWriting()
	require.NoError(t, s.Settle())
	require.NoError(t, s.Settle(), "it is already")
	require.NoError(t, s.Freeze())
	assert.Equal(t, byte(7), view(here, 1)[0], "the old address stays valid, and is the host's alone")
	if Probe().FutureWrite {
		fd, err := reopen(s.fd, unix.O_RDWR)
		require.NoError(t, err)
		defer closeFD(fd)
		_, err = mapShared(fd, s.Size(), true)
		require.ErrorIs(t, err, unix.EPERM, "it is sealed")
	}
}

// A worker writes on, or what it has forked does.
func TestAnOutputThatIsStillWrittenCanBeCopied(t *testing.T) {
	h := heapFor(t)
	s, writer, _ := outputOf(t, h)
	view(writer, 1)[0] = 1
	require.Error(t, s.Settle())
	settled, err := h.Copy(s, "copy")
	require.NoError(t, err)
	defer settled.Unref()
	view(writer, 1)[0] = 2
	reader, err := settled.Readable()
	require.NoError(t, err)
	assert.Equal(t, byte(1), view(reader, 1)[0])
}

func TestOnlyOutputsAreSettled(t *testing.T) {
	h := heapFor(t)
	require.ErrorIs(t, create(t, h, 1).Settle(), ErrNotOutput)
	alive, err := h.CreateLive(1, "live")
	require.NoError(t, err)
	require.ErrorIs(t, alive.Settle(), ErrNotOutput)
	alive.Unref()
	require.ErrorIs(t, alive.Settle(), ErrDropped)
}
