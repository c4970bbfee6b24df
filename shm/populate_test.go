//go:build linux

package shm

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestLargeSegmentsHaveTheirPagesEntered(t *testing.T) {
	if !Probe().Populate {
		t.Skip("this kernel has no MADV_POPULATE_WRITE: pages come by fallocate")
	}
	h := heapFor(t)
	h.allocate = func(int, int64, int64) error { return errors.New("there is nothing left to allocate") }
	const size = 5*largestPiece + 4096
	for name, create := range map[string]func(int64, string) (*Segment, error){
		"create": h.Create, "live": h.CreateLive, "output": h.CreateOutput,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := create(size, name)
			require.NoError(t, err)
			defer s.Unref()
			var status unix.Stat_t
			require.NoError(t, unix.Fstat(s.fd, &status))
			assert.EqualValues(t, size, status.Blocks*512, "each page is there")
			assert.Zero(t, s.charge.pending)
			w, _ := s.Writable()
			resident := make([]byte, size/4096)
			_, _, errno := unix.Syscall(unix.SYS_MINCORE, w, size, uintptr(unsafe.Pointer(&resident[0])))
			require.Zero(t, errno)
			assert.Equal(t, bytes.Repeat([]byte{1}, len(resident)), resident)
			assert.Equal(t, make([]byte, size), view(w, size))
		})
	}
}

func TestPopulatingCanBeCancelled(t *testing.T) {
	h := heapFor(t)
	stopped := errors.New("stopped")
	var asked atomic.Int64
	h.options.Cancelled = func() error { // by several goroutines at once
		if asked.Add(1) > 3 {
			return stopped
		}
		return nil
	}
	_, err := h.Create(8*largestPiece, "cancelled")
	require.ErrorIs(t, err, stopped)
	assert.Zero(t, h.Stats().InUse)
}

// However many threads populate at once, there are no more of Go's than were made for that.
func TestPopulatingAtOnceTakesItsTurns(t *testing.T) {
	h := heapFor(t)
	done := make(chan error)
	for range 8 {
		go func() {
			s, err := h.Create(4*largestPiece, "one of many")
			if err == nil {
				s.Unref()
			}
			done <- err
		}()
	}
	for range 8 {
		require.NoError(t, <-done)
	}
	assert.Empty(t, populating)
	assert.Equal(t, max(0, MostPopulating), cap(populating))
}
