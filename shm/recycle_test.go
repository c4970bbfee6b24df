//go:build linux

package shm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func needsWriteLeases(t *testing.T) {
	t.Helper()
	if !Probe().WriteLeases {
		t.Skip("this kernel has no write leases: memory is never used again")
	}
}

// hostForks makes the test the one who counts forks.
func hostForks(t *testing.T) (fork func()) {
	t.Helper()
	before, n := HostForks, uint64(0)
	HostForks = func() uint64 { return n }
	t.Cleanup(func() { HostForks = before })
	return func() { n++ }
}

// arenaOf makes an arena with one slot that the caller lets go of, and opens it as a worker does.
func arenaOf(t *testing.T, h *Heap, value byte) (slot *Slot, seg *Segment, reader int) {
	t.Helper()
	slot, err := h.Reserve(10_000, "x")
	require.NoError(t, err)
	fill(t, h, slot, value)
	seg, _ = slot.Pin()
	reader, err = seg.ReaderFD()
	require.NoError(t, err)
	seg.Unref()
	return slot, seg, reader
}

func TestAnArenaThatNobodySeesIsUsedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	slot, old, reader := arenaOf(t, h, 1)
	closeFD(reader)
	assert.Equal(t, bytes.Repeat([]byte{1}, 10_000), content(t, slot), "mapped readable as well")
	slot.Unref()
	stats := h.Stats()
	assert.EqualValues(t, 256<<10, stats.FreeList)
	assert.Zero(t, stats.InUse)
	assert.Zero(t, stats.Arenas)
	assert.Empty(t, h.Holders(10))

	again := reserve(t, h, 10_000, 2)
	seg, _ := pinned(t, again)
	assert.EqualValues(t, 1, h.Stats().Recycled)
	assert.Zero(t, h.Stats().FreeList)
	assert.NotEqual(t, old.ID(), seg.ID(), "no descriptor of the old one means the new one")
	_, err := old.ReaderFD()
	require.ErrorIs(t, err, ErrDropped)
	_, err = old.Readable()
	require.ErrorIs(t, err, ErrDropped)
	assert.Equal(t, bytes.Repeat([]byte{2}, 10_000), content(t, again))
	_, err = mapShared(seg.fd, seg.Size(), true)
	if Probe().FutureWrite {
		require.ErrorIs(t, err, unix.EPERM, "its seals are still there")
	}
}

// The worker that was told of it may ask for it, or map it, until it has answered RETIRED.
func TestAnArenaIsNotUsedAgainBeforeEachWorkerHasLetGo(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	slot, seg, reader := arenaOf(t, h, 1)
	closeFD(reader)
	seg.AddRemote()
	seg.AddRemote()
	slot.Unref()
	for range 2 {
		assert.Zero(t, h.Stats().FreeList)
		assert.Equal(t, 1, h.Stats().Retiring)
		assert.EqualValues(t, 256<<10, h.Stats().RetiringBytes)
		seg.DoneRemote()
	}
	assert.EqualValues(t, 256<<10, h.Stats().FreeList)
}

// A worker says RETIRED, but a process that its user code started still maps it.
func TestAnArenaThatAnotherProcessMapsIsNeverUsedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	slot, seg, reader := arenaOf(t, h, 7)
	seg.AddRemote()
	child := start(t, "reads on", reader)
	closeFD(reader)
	child.hears("mapped")
	seg.DoneRemote()
	slot.Unref()
	assert.Zero(t, h.Stats().FreeList)
	assert.Zero(t, h.Stats().InUse, "it has been let go of")
	for i := range 20 {
		reserve(t, h, 10_000, byte(i))
		child.says("")
		child.hears("7")
	}
	_, err := child.ends()
	require.NoError(t, err)
}

// The grandchild has what its parent had mapped, also after that has unmapped it, and shares its description.
func TestAnArenaThatAForkOfTheWorkerMapsIsNeverUsedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	slot, seg, reader := arenaOf(t, h, 7)
	addr, err := mapShared(reader, seg.Size(), false) // as in a worker
	require.NoError(t, err)
	closeFD(reader)
	grandchild := forkIdle(t)
	require.NoError(t, unmap(addr, seg.Size()))
	slot.Unref()
	assert.Zero(t, h.Stats().FreeList)
	endIdle(t, grandchild)
}

func TestAnArenaWithADescriptorInASocketIsNeverUsedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	slot, _, reader := arenaOf(t, h, 1)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(reader), nil, 0))
	closeFD(reader)
	closeFD(pair[0])
	slot.Unref()
	assert.Zero(t, h.Stats().FreeList)
	closeFD(pair[1])
}

// A child of the host shares the host's descriptions, so that the kernel's proof does not see it. Hence the count of forks.
func TestAnArenaThatAForkOfTheHostMapsIsNeverUsedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	fork := hostForks(t)
	slot, seg, reader := arenaOf(t, h, 1)
	closeFD(reader)
	_, unmapPrivate, err := seg.PrivateMap()
	require.NoError(t, err)
	fork()
	child := forkIdle(t)
	defer endIdle(t, child)
	require.NoError(t, writeLease(seg.fd), "the kernel does not notice")
	unmapPrivate()
	slot.Unref()
	assert.Zero(t, h.Stats().FreeList)
}

func TestWhatIsKeptIsNotUsedAgainAfterAForkOfTheHost(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	fork := hostForks(t)
	slot, _, reader := arenaOf(t, h, 1)
	closeFD(reader)
	slot.Unref()
	require.NotZero(t, h.Stats().FreeList)
	fork()
	reserve(t, h, 10, 1)
	assert.Zero(t, h.Stats().Recycled)
	assert.Zero(t, h.Stats().FreeList)
}

func TestWithoutWriteLeasesNothingIsUsedAgain(t *testing.T) {
	h := heapFor(t)
	h.features.WriteLeases = false
	slot, _, reader := arenaOf(t, h, 1)
	closeFD(reader)
	slot.Unref()
	assert.Zero(t, h.Stats().FreeList)
}

func TestAHeapKeepsAFewArenasOnly(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	var slots []*Slot
	for range 100 {
		s, err := h.Reserve(200_000, "x")
		require.NoError(t, err)
		slots = append(slots, s)
	}
	require.Greater(t, h.Stats().Arenas, mostSpares)
	for _, s := range slots {
		s.Unref()
	}
	assert.LessOrEqual(t, h.Stats().FreeList, uint64(mostSpares*largestArena))
	assert.NotZero(t, h.Stats().FreeList)
	assert.True(t, h.Trim(patience), "they were needed not long ago")
	assert.False(t, h.Trim(0))
	assert.Zero(t, h.Stats().FreeList)
}

// segmentOf makes a published segment that the caller lets go of, and opens it as a worker does.
func segmentOf(t *testing.T, h *Heap, size int64, value byte) (seg *Segment, reader int) {
	t.Helper()
	seg, err := h.Create(size, "x")
	require.NoError(t, err)
	copy(view(seg.Address(), size), bytes.Repeat([]byte{value}, int(size)))
	require.NoError(t, seg.Freeze())
	reader, err = seg.ReaderFD()
	require.NoError(t, err)
	return seg, reader
}

const segmentSize = 2 << 20

// keep has the heap keep the memory of one segment.
func keep(t *testing.T, h *Heap) {
	t.Helper()
	seg, reader := segmentOf(t, h, segmentSize, 1)
	closeFD(reader)
	seg.Unref()
	require.NotZero(t, h.Stats().FreeList)
}

func TestASegmentThatNobodySeesIsUsedAgain(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	old, reader := segmentOf(t, h, segmentSize, 1)
	closeFD(reader)
	_, err := old.Readable()
	require.NoError(t, err)
	inode := inodeOf(t, old.fd)
	old.Unref()
	stats := h.Stats()
	assert.EqualValues(t, segmentSize, stats.FreeList)
	assert.Zero(t, stats.InUse)
	assert.Zero(t, stats.Segments)
	assert.Equal(t, Returned{Segments: 1}, h.Returned(), "its bytes are still there")
	_, err = old.ReaderFD()
	require.ErrorIs(t, err, ErrDropped)

	for generation := range byte(3) {
		s, err := h.Create(segmentSize, "next")
		require.NoError(t, err)
		assert.Equal(t, inode, inodeOf(t, s.fd))
		assert.NotEqual(t, old.ID(), s.ID(), "no descriptor of the old one means the new one")
		assert.EqualValues(t, generation+1, h.Stats().Recycled)
		assert.Zero(t, h.Stats().FreeList)
		content := view(s.Address(), segmentSize)
		require.Empty(t, bytes.Trim(content, "\x00"), "it is zeroed")
		content[5] = generation + 2
		require.NoError(t, s.Freeze())
		content[6] = 1 // private now
		reader, err := s.Readable()
		require.NoError(t, err)
		assert.Equal(t, []byte{generation + 2, 0}, view(reader, 7)[5:])
		if Probe().FutureWrite {
			_, err = mapShared(s.fd, s.Size(), true)
			require.ErrorIs(t, err, unix.EPERM, "its seals are still there")
		}
		s.Unref()
	}
}

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var stat unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &stat))
	return stat.Ino
}

func TestMemoryThatIsNotZeroedAgainIsLeftAsItWas(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	old, reader := segmentOf(t, h, segmentSize, 7)
	closeFD(reader)
	old.Unref()
	s, err := h.CreateUnzeroed(segmentSize, "next")
	require.NoError(t, err)
	defer s.Unref()
	assert.EqualValues(t, 7, view(s.Address(), segmentSize)[5])
}

func TestASegmentIsNotUsedAgainBeforeEachWorkerHasLetGo(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	seg, reader := segmentOf(t, h, segmentSize, 1)
	closeFD(reader)
	seg.AddRemote()
	seg.AddRemote()
	seg.Unref()
	for range 2 {
		assert.Zero(t, h.Stats().FreeList)
		assert.Equal(t, 1, h.Stats().Retiring)
		assert.Equal(t, Returned{}, h.Returned())
		seg.DoneRemote()
	}
	assert.EqualValues(t, segmentSize, h.Stats().FreeList)
}

func TestASegmentThatAnotherProcessSeesIsNeverUsedAgain(t *testing.T) {
	needsWriteLeases(t)
	for name, see := range map[string]func(t *testing.T, seg *Segment, reader int) (end func()){
		"it has a descriptor": func(t *testing.T, _ *Segment, reader int) func() {
			child := start(t, "reads on", reader)
			child.hears("mapped")
			return func() { _, _ = child.ends() }
		},
		"a worker forked it": func(t *testing.T, seg *Segment, reader int) func() {
			addr, err := mapShared(reader, seg.Size(), false) // as in a worker
			require.NoError(t, err)
			grandchild := forkIdle(t)
			require.NoError(t, unmap(addr, seg.Size()))
			return func() { endIdle(t, grandchild) }
		},
		"the host forked it": func(t *testing.T, _ *Segment, _ int) func() {
			hostForks(t)()
			child := forkIdle(t)
			return func() { endIdle(t, child) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := heapFor(t)
			seg, reader := segmentOf(t, h, segmentSize, 1)
			end := see(t, seg, reader)
			closeFD(reader)
			seg.Unref()
			assert.Zero(t, h.Stats().FreeList)
			assert.Equal(t, Returned{Segments: 1, Bytes: segmentSize}, h.Returned())
			end()
		})
	}
}

// Who built a segment has its address until Freeze has moved it; a live one is written elsewhere.
func TestWhatWasNotFrozenByTheHostIsNeverUsedAgain(t *testing.T) {
	h := heapFor(t)
	built, err := h.Create(segmentSize, "built")
	require.NoError(t, err)
	built.Unref()
	alive, err := h.CreateLive(segmentSize, "live")
	require.NoError(t, err)
	alive.Unref()
	assert.Zero(t, h.Stats().FreeList)
}

func TestASegmentIsUsedAgainForOneOfItsSize(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	keep(t, h)
	create(t, h, segmentSize+1)
	create(t, h, segmentSize/2)
	reserve(t, h, 10, 1) // in an arena
	assert.Zero(t, h.Stats().Recycled)
	s := create(t, h, segmentSize*15/16)
	assert.EqualValues(t, 1, h.Stats().Recycled)
	assert.EqualValues(t, segmentSize*15/16, s.Len())
	assert.EqualValues(t, segmentSize, s.Size())
}

func TestHeapsKeepAShareOfTheMachineOnly(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	h.budget = newBudget(func() (headroom, error) { return headroom{bytes: 20 << 20, source: "test"}, nil })
	var all []*Segment
	for range 5 {
		seg, reader := segmentOf(t, h, segmentSize, 1)
		closeFD(reader)
		all = append(all, seg)
	}
	for _, s := range all {
		s.Unref()
	}
	assert.EqualValues(t, 2*segmentSize, h.Stats().FreeList, "a quarter of what could be had, in whole segments")
	h.Close()
	assert.Zero(t, h.Stats().FreeList)
}

func TestWhatIsKeptIsGivenBackBeforeTheProcessRunsIntoItsLimits(t *testing.T) {
	needsWriteLeases(t)
	h := heapFor(t)
	keep(t, h)
	allowMappings(t, 0)
	create(t, h, 10*segmentSize)
	assert.Zero(t, h.Stats().FreeList)
}

func TestTheWaitForZeroesCanBeCancelled(t *testing.T) {
	needsWriteLeases(t)
	cancel := errors.New("cancelled")
	var answer error
	h := heapWith(t, HeapOptions{Cancelled: func() error { return answer }})
	keep(t, h)
	answer = cancel
	_, err := h.Create(segmentSize, "next")
	require.ErrorIs(t, err, cancel)
	assert.Zero(t, h.Stats().InUse)
}

func TestAClosedHeapKeepsNothing(t *testing.T) {
	h := heapFor(t)
	slot, _, reader := arenaOf(t, h, 1)
	closeFD(reader)
	h.Close()
	slot.Unref()
	assert.Zero(t, h.Stats().FreeList)
}

func TestWhatIsKeptIsGivenBackBeforeTheHeapIsFull(t *testing.T) {
	needsWriteLeases(t)
	h := heapWith(t, HeapOptions{Limit: 4 << 20})
	slot, _, reader := arenaOf(t, h, 1)
	closeFD(reader)
	slot.Unref()
	require.NotZero(t, h.Stats().FreeList)
	create(t, h, 4<<20)
	assert.Zero(t, h.Stats().FreeList)
}

func TestAHeapSaysWhenItKeepsSomething(t *testing.T) {
	needsWriteLeases(t)
	kept := 0
	h := heapWith(t, HeapOptions{OnSpare: func() { kept++ }})
	slot, _, reader := arenaOf(t, h, 1)
	slot.Unref()
	assert.Zero(t, kept)
	closeFD(reader)
	slot, _, reader = arenaOf(t, h, 1)
	closeFD(reader)
	slot.Unref()
	assert.Equal(t, 1, kept)
}
