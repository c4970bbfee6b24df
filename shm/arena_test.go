//go:build linux

package shm

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// reserve takes a slot that goes when the test ends, filled with one byte.
func reserve(t *testing.T, h *Heap, size int64, content byte) *Slot {
	t.Helper()
	s, err := h.Reserve(size, t.Name())
	require.NoError(t, err)
	t.Cleanup(s.Unref)
	fill(t, h, s, content)
	return s
}

// fill writes a slot as a publish does: from a draft.
func fill(t *testing.T, h *Heap, s *Slot, content byte) {
	t.Helper()
	d, err := h.Draft(s.Len(), t.Name())
	require.NoError(t, err)
	defer d.Release()
	draft := view(d.Address(), s.Len())
	require.True(t, zero(draft), "a draft has zeros")
	copy(draft, bytes.Repeat([]byte{content}, int(s.Len())))
	s.Write(d.Address())
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// content reads a slot the way a view does.
func content(t *testing.T, s *Slot) []byte {
	t.Helper()
	seg, offset := s.Pin()
	defer seg.Unref()
	r, err := seg.Readable()
	require.NoError(t, err)
	return bytes.Clone(view(r+uintptr(offset), s.Len()))
}

func TestSmallArraysShareDescriptorsAndMappings(t *testing.T) {
	h := heapFor(t)
	before := mappings.count.Load()
	var slots []*Slot
	for i := range 5000 {
		slots = append(slots, reserve(t, h, int64(i), byte(i)))
	}
	assert.LessOrEqual(t, h.Stats().Arenas, 9, "12 MiB in arenas that grow from 256 KiB to 4 MiB")
	assert.Equal(t, 5000, h.Stats().Segments)
	for i, s := range slots {
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, i), content(t, s), "slot %d", i)
	}
	assert.LessOrEqual(t, mappings.count.Load()-before, int64(18), "two for each arena")
}

func TestSlotsAreAlignedAndApart(t *testing.T) {
	h := heapFor(t)
	at := map[int64]bool{}
	for _, size := range []int64{0, 1, 63, 64, 65, 0, 0, 4096} {
		_, offset := pinned(t, reserve(t, h, size, 1))
		assert.Zero(t, offset%64)
		assert.False(t, at[offset], "two slots begin at %d", offset)
		at[offset] = true
	}
}

// pinned pins a slot until the test ends.
func pinned(t *testing.T, s *Slot) (*Segment, int64) {
	t.Helper()
	seg, offset := s.Pin()
	t.Cleanup(seg.Unref)
	return seg, offset
}

func TestArenasGrow(t *testing.T) {
	h := heapFor(t)
	var sizes []int64
	seen := map[uint64]bool{}
	for range 120 {
		seg, _ := pinned(t, reserve(t, h, 100_000, 1))
		if !seen[seg.ID()] {
			seen[seg.ID()] = true
			sizes = append(sizes, seg.Size()>>10)
		}
	}
	require.Equal(t, []int64{256, 256, 512, 1024, 2048, 4096, 4096}, sizes)
}

func TestAnArenaGoesWithItsLastSlotAndReader(t *testing.T) {
	var gone []uint64
	h := heapWith(t, HeapOptions{OnDrop: func(s *Segment) { gone = append(gone, s.ID()) }})
	first, err := h.Reserve(100, "first")
	require.NoError(t, err)
	second, err := h.Reserve(100, "second")
	require.NoError(t, err)
	seg, _ := first.Pin()
	assert.True(t, seg.Shared())
	first.Unref()
	second.Unref()
	assert.Empty(t, gone, "someone reads in it still")
	assert.Zero(t, h.Stats().Segments)
	seg.Unref()
	assert.Equal(t, []uint64{seg.ID()}, gone)
	assert.Zero(t, h.Stats().InUse)
}

func TestASlotIsNeverHandedOutTwice(t *testing.T) {
	h := heapFor(t)
	reserve(t, h, 64, 1) // keeps the arena
	var last int64
	for range 100 {
		s, err := h.Reserve(64, "x")
		require.NoError(t, err)
		_, offset := pinned(t, s)
		assert.Greater(t, offset, last)
		last = offset
		s.Unref()
	}
}

func TestAHeapWithALimitPacksWhatIsSmallBesideIt(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 4 << 20})
	assert.True(t, h.Small(65_535))
	assert.False(t, h.Small(65_536), "a sixty-fourth of the limit")
	assert.True(t, NewHeap(HeapOptions{}).Small(1<<20-1))
	assert.False(t, NewHeap(HeapOptions{}).Small(1<<20))

	seg, _ := pinned(t, reserve(t, h, 10, 1))
	assert.EqualValues(t, 256<<10, seg.Size(), "a sixteenth of the limit")
	for range 50 {
		seg, _ := pinned(t, reserve(t, h, 60_000, 1))
		assert.EqualValues(t, 256<<10, seg.Size())
	}
}

func TestTheLastRoomIsGivenInSmallerPieces(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 4 << 20})
	large := create(t, h, 4<<20-(64<<10))
	s := reserve(t, h, 10_000, 3) // an arena and, for a moment, a chunk of drafts
	seg, _ := pinned(t, s)
	assert.EqualValues(t, 12<<10, seg.Size())
	assert.Equal(t, bytes.Repeat([]byte{3}, 10_000), content(t, s))
	_ = large
}

func TestAFullHeapNamesSmallArraysTogether(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 8 << 20})
	for range 100 {
		reserve(t, h, 10_000, 1)
	}
	d, err := h.Draft(100, "half-written")
	require.NoError(t, err)
	defer d.Release()
	_, err = h.Create(8<<20, "more")
	var full *FullError
	require.ErrorAs(t, err, &full)
	require.Len(t, full.Holders, 2)
	assert.Equal(t, "100 small arrays", full.Holders[0].Label)
	assert.EqualValues(t, 100, full.Holders[0].Arrays)
	assert.GreaterOrEqual(t, full.Holders[0].Bytes, uint64(1_000_000))
	assert.Equal(t, "half-written", full.Holders[1].Label, "one is called by its name")
	assert.Contains(t, full.Error(), "held by 100 small arrays 1.0 MiB, \"half-written\" 64.0 KiB")
}

func TestAFullHeapRefusesASlotByItsOwnSize(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 1 << 20})
	create(t, h, 1<<20-8192)
	_, err := h.Reserve(10_000, "small")
	var full *FullError
	require.ErrorAs(t, err, &full)
	assert.EqualValues(t, 12<<10, full.Asked)
	assert.Equal(t, "small", full.Label)
	_, err = h.Draft(10_000, "small")
	require.ErrorAs(t, err, &full)
	assert.EqualValues(t, 12<<10, full.Asked)
}

func TestDraftsShareAMappingAndAreZeroed(t *testing.T) {
	h := heapFor(t)
	before := mappings.count.Load()
	for range 3 {
		var drafts []*Draft
		for range 1000 {
			d, err := h.Draft(100, "x")
			require.NoError(t, err)
			require.Zero(t, d.Address()%64)
			bytes := view(d.Address(), 100)
			require.True(t, zero(bytes))
			for i := range bytes {
				bytes[i] = 0xff
			}
			drafts = append(drafts, d)
		}
		assert.LessOrEqual(t, mappings.count.Load()-before, int64(2))
		for _, d := range drafts {
			d.Release()
		}
		assert.Zero(t, h.Stats().InUse)
	}
}

func TestArenasAreReadOnlyForEveryoneElse(t *testing.T) {
	h := heapFor(t)
	seg, _ := pinned(t, reserve(t, h, 100, 1))
	_, writable := seg.Writable()
	assert.False(t, writable)
	assert.Zero(t, seg.Address())
	_, err := seg.WriterFD()
	require.ErrorIs(t, err, ErrNotLive)
	require.ErrorIs(t, seg.Adopt(), ErrNotGranted)
	require.NoError(t, seg.Freeze())
	fd, err := seg.ReaderFD()
	require.NoError(t, err)
	defer closeFD(fd)
	_, err = mapShared(fd, seg.Size(), true)
	require.Error(t, err)
}

func TestPackCopiesWhatItsWriterMayStillChange(t *testing.T) {
	h := heapFor(t)
	s, writer := grant(t, h, 10_000)
	child := start(t, "writer", writer)
	closeFD(writer)
	child.hears("mapped")
	child.says("")
	child.hears("written")
	slot, err := h.Pack(s, "packed")
	require.NoError(t, err)
	defer slot.Unref()
	child.says("")
	child.hears("written")
	assert.Equal(t, bytes.Repeat([]byte{1}, 10_000), content(t, slot))
}

func TestPackOfADroppedSegmentIsRefused(t *testing.T) {
	h := heapFor(t)
	s, writer, _, err := h.Grant(100, "x")
	require.NoError(t, err)
	closeFD(writer)
	s.Unref()
	_, err = h.Pack(s, "packed")
	require.ErrorIs(t, err, ErrDropped)
}

func TestSlotsFromManyGoroutines(t *testing.T) {
	h := heapFor(t)
	var all sync.WaitGroup
	failed := make(chan error, 8)
	for worker := range 8 {
		all.Go(func() {
			var mine []*Slot
			for i := range 300 {
				s, err := h.Reserve(int64(1+(i*37)%5000), "x")
				if err != nil {
					failed <- err
					return
				}
				d, err := h.Draft(s.Len(), "x")
				if err != nil {
					failed <- err
					return
				}
				copy(view(d.Address(), s.Len()), bytes.Repeat([]byte{byte(worker)}, int(s.Len())))
				s.Write(d.Address())
				d.Release()
				mine = append(mine, s)
				if len(mine) > 50 {
					s, mine = mine[0], mine[1:]
					s.Unref()
				}
			}
			for _, s := range mine {
				seg, offset := s.Pin()
				r, err := seg.Readable()
				if err != nil || bytes.Count(view(r+uintptr(offset), s.Len()), []byte{byte(worker)}) != int(s.Len()) {
					failed <- errors.Join(err, errors.New("a slot changed"))
				}
				seg.Unref()
				s.Unref()
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	assert.Zero(t, h.Stats().InUse)
}
