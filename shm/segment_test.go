//go:build linux

package shm

import (
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNewSegmentIsZeroedAndItsPagesAreThere(t *testing.T) {
	h := heapFor(t)
	page := int64(os.Getpagesize())
	for asked, mapped := range map[int64]int64{0: page, 1: page, page: page, page + 1: 2 * page, 33 << 20: 33 << 20} {
		s, err := h.Create(asked, "zero")
		require.NoError(t, err)
		assert.Zero(t, process.pending, "all its pages are there, and the books know")
		assert.Equal(t, asked, s.Len())
		assert.Equal(t, mapped, s.Size())
		var st syscall.Stat_t
		require.NoError(t, syscall.Fstat(s.fd, &st))
		assert.Equal(t, mapped, st.Size)
		assert.GreaterOrEqual(t, st.Blocks*512, mapped, "not all pages are allocated")
		w, _ := s.Writable()
		for i, b := range view(w, mapped) {
			if b != 0 {
				t.Fatalf("byte %d is %d", i, b)
			}
		}
		assert.Zero(t, w%64)
		s.Unref()
	}
}

func TestSizesThatMakeNoSense(t *testing.T) {
	h := heapFor(t)
	for _, make := range []func(int64, string) (*Segment, error){h.Create, h.CreateLive,
		func(n int64, label string) (*Segment, error) { s, _, _, err := h.Grant(n, label); return s, err }} {
		s, err := make(-1, "negative")
		require.ErrorIs(t, err, ErrSize)
		assert.Nil(t, s)
		assert.Contains(t, err.Error(), `-1 bytes for "negative"`)
		s, err = make(math.MaxInt64, "everything")
		var full *FullError
		require.ErrorAs(t, err, &full)
		assert.Nil(t, s)
	}
}

func TestSegmentsAreTold(t *testing.T) {
	h, other := heapFor(t), NewHeap(HeapOptions{})
	seen := map[uint64]bool{0: true}
	for range 50 {
		for _, h := range []*Heap{h, other} {
			s, err := h.Create(1, "one")
			require.NoError(t, err)
			assert.False(t, seen[s.ID()])
			seen[s.ID()] = true
			assert.Equal(t, "one", s.Label())
			s.Unref()
		}
	}
}

func TestGrantedIsNotMappedInTheHost(t *testing.T) {
	s, writer := grant(t, heapFor(t), 1)
	defer closeFD(writer)
	maps, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	assert.NotContains(t, string(maps), "memfd:theus")
	assert.Zero(t, s.Address())
	_, writable := s.Writable()
	assert.False(t, writable)
	require.ErrorIs(t, s.Freeze(), ErrNotAdopted)
}

func TestMapsStayOutOfCoreFiles(t *testing.T) {
	h := heapFor(t)
	s := create(t, h, 1)
	require.NoError(t, s.Freeze())
	_, unmapIt, err := s.PrivateMap()
	require.NoError(t, err)
	defer unmapIt()
	text, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	maps := 0
	inside := false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.Contains(line, "memfd:theus"):
			inside = true
		case inside && strings.HasPrefix(line, "VmFlags:"):
			assert.Contains(t, strings.Fields(line), "dd", line)
			inside = false
			maps++
		}
	}
	assert.Equal(t, int(mappings.count.Load()), maps, "the package counts every map that it has")
}

func TestDropTellsOnceWithoutALock(t *testing.T) {
	watch(t)
	var told []string
	var h *Heap
	h = NewHeap(HeapOptions{OnDrop: func(s *Segment) {
		// Both would hang if a lock were held.
		_ = h.Stats()
		_, err := s.Readable()
		assert.ErrorIs(t, err, ErrDropped)
		told = append(told, s.Label())
	}})
	s, err := h.Create(1, "a")
	require.NoError(t, err)
	s.Ref()
	s.Unref()
	assert.Empty(t, told)
	s.Unref()
	assert.Equal(t, []string{"a"}, told)
}

func TestDroppedSegmentRefuses(t *testing.T) {
	h := heapFor(t)
	s, err := h.Create(1, "gone")
	require.NoError(t, err)
	s.Unref()
	_, err = s.Readable()
	require.ErrorIs(t, err, ErrDropped)
	assert.Regexp(t, `^shm: cannot map segment \d+ "gone": the segment was dropped`, err.Error())
	_, err = s.ReaderFD()
	require.ErrorIs(t, err, ErrDropped)
	_, err = s.WriterFD()
	require.ErrorIs(t, err, ErrDropped)
	_, _, err = s.PrivateMap()
	require.ErrorIs(t, err, ErrDropped)
	require.ErrorIs(t, s.Freeze(), ErrDropped)
	require.ErrorIs(t, s.Adopt(), ErrDropped)
	_, err = h.Copy(s, "copy")
	require.ErrorIs(t, err, ErrDropped)
	_, writable := s.Writable()
	assert.False(t, writable)
	assert.Panics(t, s.Ref)
	assert.Panics(t, s.AddRemote)
	assert.Panics(t, s.Unref)
}

func TestReaderOutlivesTheHostsSegment(t *testing.T) {
	h := heapFor(t)
	s, err := h.Create(1, "short-lived")
	require.NoError(t, err)
	w, _ := s.Writable()
	view(w, 1)[0] = 42
	require.NoError(t, s.Freeze())
	reader, err := s.ReaderFD()
	require.NoError(t, err)
	child := start(t, "reader", reader)
	closeFD(reader)
	child.hears("first byte 42")
	s.Unref()
	said, err := child.ends()
	require.NoError(t, err)
	assert.Contains(t, said, "\nfirst byte 42\n")
}

func TestRemotesKeepTheBudget(t *testing.T) {
	h := heapFor(t)
	s, err := h.Create(1<<20, "held")
	require.NoError(t, err)
	s.AddRemote()
	s.AddRemote()
	s.DoneRemote()
	s.Unref()
	stats := h.Stats()
	assert.Equal(t, HeapStats{InUse: 1 << 20, Limit: stats.Limit, Retiring: 1, RetiringBytes: 1 << 20}, stats)
	assert.Equal(t, []Holder{{Label: "held", Bytes: 1 << 20, Retiring: true}}, h.Holders(3))
	s.DoneRemote()
	assert.Zero(t, h.Stats().InUse)
	assert.Panics(t, s.DoneRemote)
}

func TestFailedCreationLeavesNothing(t *testing.T) {
	h := heapFor(t)
	h.populate = 0
	stopped := errors.New("stopped")
	h.options.OnDrop = func(*Segment) { t.Error("told of a segment that never was") }
	pieces := 0
	h.options.Cancelled = func() error {
		if pieces++; pieces > 2 {
			return stopped
		}
		return nil
	}
	_, err := h.Create(64<<20, "cancelled")
	require.ErrorIs(t, err, stopped)
	assert.Equal(t, 3, pieces)
	h.options.Cancelled = nil

	h.allocate = func(int, int64, int64) error { return syscall.ENOSPC }
	_, _, _, err = h.Grant(1, "no room")
	var full *FullError
	require.ErrorAs(t, err, &full)
	require.ErrorIs(t, err, syscall.ENOSPC)

	h.allocate = func(int, int64, int64) error { return syscall.EOPNOTSUPP }
	_, err = h.CreateLive(1, "no fallocate")
	var kernel *KernelError
	require.ErrorAs(t, err, &kernel)
	assert.Contains(t, err.Error(), "fallocate")
	assert.Zero(t, h.Stats().InUse)
}

func TestWhereMemfdIsForbidden(t *testing.T) {
	h := heapFor(t)
	h.memory = func() (int, bool, error) {
		fd, err := newTmpfile("/dev/shm")
		return fd, false, err
	}
	s, err := h.Create(1, "in a file")
	if err != nil {
		t.Skipf("no tmpfs on /dev/shm: %v", err)
	}
	defer s.Unref()
	w, _ := s.Writable()
	view(w, 1)[0] = 1
	require.NoError(t, s.Freeze())
	view(w, 1)[0] = 2
	r, err := s.Readable()
	require.NoError(t, err)
	assert.EqualValues(t, 1, view(r, 1)[0])
	reader, err := s.ReaderFD()
	require.NoError(t, err)
	defer closeFD(reader)
	_, err = mapShared(reader, s.Size(), true)
	require.ErrorIs(t, err, syscall.EACCES)

	given, writer := grant(t, h, 1)
	if h.features.Leases {
		require.ErrorIs(t, given.Adopt(), ErrStillWritten)
		closeFD(writer)
		require.NoError(t, given.Adopt())
	} else {
		closeFD(writer)
	}
}

func TestSegmentsFromManyGoroutines(t *testing.T) {
	var mu sync.Mutex
	drops := 0
	h := heapWith(t, HeapOptions{OnDrop: func(*Segment) { mu.Lock(); drops++; mu.Unlock() }})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				s, err := h.Create(1, "x")
				if !assert.NoError(t, err) {
					return
				}
				var users sync.WaitGroup
				for range 3 {
					s.Ref()
					users.Go(func() {
						defer s.Unref()
						assert.NoError(t, s.Freeze())
						_, err := s.Readable()
						assert.NoError(t, err)
						s.AddRemote()
						s.DoneRemote()
					})
				}
				s.Unref()
				users.Wait()
			}
		})
	}
	all.Wait()
	assert.Equal(t, 400, drops)
	assert.Zero(t, h.Stats().InUse)
}

// What was given back is what somebody had: a segment that the kernel gave no pages for is not.
func TestReturnedCountsSegmentsThatWereMade(t *testing.T) {
	h := heapFor(t)
	s, err := h.Create(5000, "made")
	require.NoError(t, err)
	require.Equal(t, Returned{}, h.Returned())
	s.AddRemote()
	s.Unref()
	require.Equal(t, Returned{}, h.Returned(), "a worker maps it still")
	require.True(t, h.Retiring())
	s.DoneRemote()
	require.Equal(t, Returned{Segments: 1, Bytes: 8192}, h.Returned())
	require.False(t, h.Retiring())

	h.allocate = func(int, int64, int64) error { return syscall.ENOSPC }
	_, err = h.Create(5000, "not made")
	require.Error(t, err)
	require.Equal(t, Returned{Segments: 1, Bytes: 8192}, h.Returned())
}
