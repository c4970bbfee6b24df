//go:build linux

package shm

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Whatever is interrupted, and whenever it is cancelled: every byte is allocated once, in
// order, in pieces that are not too large, and what was reported is what was done.
func TestAllocatePagesCoversEveryByteOnce(t *testing.T) {
	stopped := errors.New("stopped")
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 200<<20).Draw(t, "size")
		patienceOfCaller := rapid.IntRange(1, 400).Draw(t, "asked before it cancels")
		interrupted := rapid.SliceOfN(rapid.Bool(), 0, 40).Draw(t, "interrupted")
		var next, reported int64
		allocate := func(_ int, offset, n int64) error {
			assert.Equal(t, next, offset)
			assert.Positive(t, n)
			assert.LessOrEqual(t, n, int64(largestPiece))
			if len(interrupted) > 0 {
				now := interrupted[0]
				interrupted = interrupted[1:]
				if now {
					return syscall.EINTR
				}
			}
			next = offset + n
			return nil
		}
		asked := 0
		cancel := func() error {
			if asked++; asked > patienceOfCaller {
				return stopped
			}
			return nil
		}
		err := allocatePages(allocate, -1, size, cancel, func(n int64) { reported += n })
		assert.Equal(t, next, reported)
		if err != nil {
			assert.ErrorIs(t, err, stopped)
			assert.Less(t, next, size)
			return
		}
		assert.Equal(t, size, next)
	})
}

func TestAllocatePagesHalvesWhatIsInterrupted(t *testing.T) {
	var tried []int64
	allocate := func(_ int, _, n int64) error {
		tried = append(tried, n>>20)
		if n > 3<<20 {
			return syscall.EINTR
		}
		return nil
	}
	require.NoError(t, allocatePages(allocate, -1, 6<<20, nil, func(int64) {}))
	// All of it, half of that, then twice as much again but no more than is left.
	assert.Equal(t, []int64{6, 3, 3}, tried)
}

// With a storm of signals it still comes to its end, whether this kernel lets them
// interrupt fallocate (older ones do) or not.
func TestAllocatePagesUnderSignals(t *testing.T) {
	watch(t)
	fd, err := newMemfd()
	require.NoError(t, err)
	defer closeFD(fd)
	const size = 64 << 20
	require.NoError(t, resize(fd, size))

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	var stop atomic.Bool
	var sender sync.WaitGroup
	sender.Go(func() {
		for !stop.Load() {
			_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
		}
	})
	err = allocatePages(fallocate, fd, size, nil, func(int64) {})
	stop.Store(true)
	sender.Wait()
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	assert.EqualValues(t, size, st.Blocks*512)
}
