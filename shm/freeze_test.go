//go:build linux

package shm

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// eachFreeze runs a test with the kernel as it is, and as one that cannot move a map aside.
func eachFreeze(t *testing.T, test func(t *testing.T, h *Heap)) {
	t.Run("moved aside", func(t *testing.T) {
		h := heapFor(t)
		if !h.features.DontUnmapMove {
			t.Skip("this kernel has no MREMAP_DONTUNMAP for shared maps (Linux 5.13)")
		}
		test(t, h)
	})
	t.Run("covered", func(t *testing.T) {
		h := heapFor(t)
		h.features.DontUnmapMove = false
		test(t, h)
	})
}

// The kernel moves page tables as a whole only between places that lie alike in what one covers.
func TestLargeMapsMoveToAPlaceThatLiesAlike(t *testing.T) {
	h := heapFor(t)
	if !h.features.DontUnmapMove {
		t.Skip("this kernel has no MREMAP_DONTUNMAP for shared maps (Linux 5.13)")
	}
	for _, size := range []int64{2*pageTable + 4096, 5*pageTable + 3*4096} {
		s := create(t, h, size)
		w, _ := s.Writable()
		mine := view(w, s.Size())
		mine[0], mine[size/2], mine[size-1] = 1, 2, 3
		require.NoError(t, s.Freeze())
		assert.NotEqual(t, w, s.w.addr)
		assert.Equal(t, w%pageTable, s.w.addr%pageTable)
		moved := view(s.w.addr, size)
		assert.Equal(t, []byte{1, 2, 3}, []byte{moved[0], moved[size/2], moved[size-1]})
		assert.Equal(t, []byte{1, 2, 3}, []byte{mine[0], mine[size/2], mine[size-1]})
	}
}

// Where the place is taken, or below all addresses, the map is moved all the same.
func TestLargeMapsMoveWhereThePlaceIsTaken(t *testing.T) {
	h := heapFor(t)
	if !h.features.DontUnmapMove {
		t.Skip("this kernel has no MREMAP_DONTUNMAP for shared maps (Linux 5.13)")
	}
	s := create(t, h, 2*pageTable)
	w, _ := s.Writable()
	view(w, 1)[0] = 5
	fd, err := unix.MemfdCreate("taken", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer closeFD(fd)
	require.NoError(t, unix.Ftruncate(fd, 4096))
	taken, err := unix.MmapPtr(fd, 0, pointer(placeLike(w, s.Size())), 4096, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
	require.NoError(t, err)
	require.NoError(t, s.Freeze())
	assert.NotEqual(t, uintptr(taken), s.w.addr)
	assert.EqualValues(t, 5, view(s.w.addr, 1)[0])
	assert.Zero(t, view(uintptr(taken), 1)[0], "what was there is there")
	require.NoError(t, unmap(uintptr(taken), 4096))
	assert.Zero(t, placeLike(farBelow, s.Size()))
}

func TestStalePointerReachesNobodyAfterFreeze(t *testing.T) {
	eachFreeze(t, func(t *testing.T, h *Heap) {
		s := create(t, h, 3*4096)
		w, writable := s.Writable()
		require.True(t, writable)
		require.Equal(t, w, s.Address())
		stale := view(w, s.Size())
		for i := range stale {
			stale[i] = byte(i)
		}
		require.NoError(t, s.Freeze())
		require.Equal(t, w, s.Address(), "the address stays")
		reader, err := s.ReaderFD()
		require.NoError(t, err)
		child := start(t, "reader", reader)
		closeFD(reader)
		child.hears("first byte 0")

		for i := range stale {
			require.Equal(t, byte(i), stale[i], "byte %d is still there", i)
			stale[i]++
		}
		r, err := s.Readable()
		require.NoError(t, err)
		require.NotEqual(t, w, r)
		for i, b := range view(r, s.Size()) {
			require.Equal(t, byte(i), b, "byte %d", i)
		}
		said, err := child.ends()
		require.NoError(t, err)
		assert.Contains(t, said, "\nfirst byte 0\n", "the other process read it again at its end")

		_, writable = s.Writable()
		assert.False(t, writable)
		require.NoError(t, s.Freeze(), "again")
		assert.Equal(t, byte(1), stale[0], "a second freeze does not touch the private pages")
	})
}

// Threads that go on writing while another one publishes: once Freeze is back, nothing moves.
func TestFreezeUnderWriters(t *testing.T) {
	eachFreeze(t, func(t *testing.T, h *Heap) {
		for range 10 {
			s := create(t, h, 16<<10)
			var stop atomic.Bool
			var writers sync.WaitGroup
			wrote := make(chan struct{}, 2)
			for range 2 {
				writers.Go(func() {
					for n := byte(1); !stop.Load(); n++ {
						stale := view(s.Address(), s.Len())
						for i := 0; i < len(stale); i += 1024 {
							stale[i] = n
						}
						select {
						case wrote <- struct{}{}:
						default:
						}
					}
				})
			}
			<-wrote
			require.NoError(t, s.Freeze())
			r, err := s.Readable()
			require.NoError(t, err)
			seen := string(view(r, s.Len()))
			for range 10 {
				<-wrote
			}
			assert.True(t, seen == string(view(r, s.Len())), "the content moved after Freeze")
			stop.Store(true)
			writers.Wait()
		}
	})
}

// The map that was moved aside is the old one, page tables and all, still shared, so
// that it can be used again.
func TestFreezeKeepsTheWritableMapAside(t *testing.T) {
	h := heapFor(t)
	if !h.features.DontUnmapMove {
		t.Skip("this kernel has no MREMAP_DONTUNMAP for shared maps (Linux 5.13)")
	}
	s := create(t, h, 1)
	require.NoError(t, s.Freeze())
	r, err := s.Readable()
	require.NoError(t, err)
	view(s.w.addr, 1)[0] = 5
	assert.EqualValues(t, 5, view(r, 1)[0])
	assert.EqualValues(t, 5, view(s.Address(), 1)[0], "never written there, so not yet a private page")
}

func TestFreezeThatFailsChangesNothing(t *testing.T) {
	eachFreeze(t, func(t *testing.T, h *Heap) {
		s := create(t, h, 1)
		r, err := s.Readable()
		require.NoError(t, err)
		before := mappings.count.Load()
		fd := s.fd
		s.fd = -1 // the private map cannot be made
		var refused *KernelError
		require.ErrorAs(t, s.Freeze(), &refused)
		s.fd = fd
		assert.Equal(t, before, mappings.count.Load())
		w, writable := s.Writable()
		require.True(t, writable)
		require.Equal(t, s.Address(), w)
		view(w, 1)[0] = 3
		assert.EqualValues(t, 3, view(r, 1)[0], "it is still under construction")
		require.NoError(t, s.Freeze())
		view(w, 1)[0] = 4
		assert.EqualValues(t, 3, view(r, 1)[0])
	})
}

// What several segments need to be frozen together is taken first; it can be given back.
func TestAPreparedFreezeCanBeAbandoned(t *testing.T) {
	for name, move := range map[string]bool{"map moved aside": true, "map covered": false} {
		t.Run(name, func(t *testing.T) {
			h := heapFor(t)
			h.features.DontUnmapMove = h.features.DontUnmapMove && move
			s := create(t, h, 5000)
			before := mappings.count.Load()
			view(s.Address(), 1)[0] = 1
			require.NoError(t, s.PrepareFreeze())
			require.NoError(t, s.PrepareFreeze(), "again")
			view(s.Address(), 1)[0] = 2
			s.AbandonFreeze()
			assert.LessOrEqual(t, mappings.count.Load()-before, int64(1), "R may stay")
			addr, writable := s.Writable()
			assert.True(t, writable)
			assert.Equal(t, s.Address(), addr)
			view(addr, 1)[0] = 3
			require.NoError(t, s.PrepareFreeze())
			require.NoError(t, s.Freeze())
			view(addr, 1)[0] = 4
			r, err := s.Readable()
			require.NoError(t, err)
			assert.EqualValues(t, 3, view(r, 1)[0])
		})
	}
}
