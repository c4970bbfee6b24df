//go:build linux

package shm

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// crowd makes arenas with small slots, enough to fill two of them, and gives the first one's segment.
func crowd(t *testing.T, h *Heap) (slots []*Slot, first *Segment) {
	t.Helper()
	for i := range 40 {
		s, err := h.Reserve(10_000, "x")
		require.NoError(t, err)
		fill(t, h, s, byte(i))
		slots = append(slots, s)
	}
	first, _ = slots[0].Pin()
	first.Unref()
	return slots, first
}

func TestASurvivorDoesNotKeepItsArena(t *testing.T) {
	var gone []uint64
	h := heapWith(t, HeapOptions{OnDrop: func(s *Segment) { gone = append(gone, s.ID()) }})
	slots, first := crowd(t, h)
	survivor := slots[3]
	t.Cleanup(survivor.Unref)
	for i, s := range slots {
		if s != survivor {
			assert.Equal(t, i < 21, len(gone) == 0, "cleared when less than a quarter of it lives (slot %d)", i)
			s.Unref()
		}
	}
	assert.Contains(t, gone, first.ID())
	assert.NotZero(t, h.Stats().Moved)
	assert.Equal(t, 1, h.Stats().Segments)
	assert.LessOrEqual(t, h.Stats().Arenas, 1)
	assert.Equal(t, bytes.Repeat([]byte{3}, 10_000), content(t, survivor))
}

// A reader was told where it is: there it stays until he has let go, and then it is moved.
func TestWhatIsReadStaysWhereItIs(t *testing.T) {
	var gone []uint64
	h := heapWith(t, HeapOptions{OnDrop: func(s *Segment) { gone = append(gone, s.ID()) }})
	slots, first := crowd(t, h)
	survivor := slots[3]
	t.Cleanup(survivor.Unref)
	seg, offset := survivor.Pin()
	base, err := seg.Readable()
	require.NoError(t, err)
	read := view(base+uintptr(offset), survivor.Len())
	for _, s := range slots {
		if s != survivor {
			s.Unref()
		}
	}
	assert.NotContains(t, gone, first.ID())
	assert.Equal(t, bytes.Repeat([]byte{3}, 10_000), read)
	again, where := survivor.Pin()
	assert.Equal(t, seg, again)
	assert.Equal(t, offset, where)
	again.Unref()
	seg.Unref()
	assert.Contains(t, gone, first.ID(), "now it was moved")
	assert.Equal(t, bytes.Repeat([]byte{3}, 10_000), content(t, survivor))
}

// An arena may be mostly dead already when it is no longer the open one.
func TestAnArenaIsClearedWhenTheNextIsOpened(t *testing.T) {
	var gone []uint64
	h := heapWith(t, HeapOptions{OnDrop: func(s *Segment) { gone = append(gone, s.ID()) }})
	survivor := reserve(t, h, 100, 5)
	first, _ := survivor.Pin()
	first.Unref()
	for range 40 {
		s, err := h.Reserve(10_000, "x")
		require.NoError(t, err)
		s.Unref()
	}
	assert.Contains(t, gone, first.ID())
	assert.Equal(t, bytes.Repeat([]byte{5}, 100), content(t, survivor))
}

func TestWithoutRoomTheSurvivorsStay(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 4 << 20})
	slots, first := crowd(t, h) // in arenas of a sixteenth of the limit
	full := false
	for !full {
		s, err := h.Create(4096, "filler")
		if full = err != nil; !full {
			t.Cleanup(s.Unref)
		}
	}
	// The open arena has no room for what is left of the first, and another one cannot be had.
	for h.arenas.open.room() >= 10_048 {
		s, err := h.Reserve(10_000, "filler")
		require.NoError(t, err)
		t.Cleanup(s.Unref)
	}
	for i, s := range slots {
		if i < 4 {
			t.Cleanup(s.Unref)
			continue
		}
		seg, _ := s.Pin()
		in := seg == first
		seg.Unref()
		if in {
			s.Unref()
			continue
		}
		t.Cleanup(s.Unref)
	}
	for i, s := range slots[:4] {
		assert.Equal(t, bytes.Repeat([]byte{byte(i)}, 10_000), content(t, s))
	}
	assert.Zero(t, h.Stats().Moved)
}

// The slots of an arena and its readers go at the same time, in several goroutines: whichever is last, the survivor is moved.
func TestNoDepartureIsOverlooked(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 4 << 20})
	for round := range 1000 {
		slots, first := crowd(t, h)
		id := first.ID()
		var readers sync.WaitGroup
		for i, s := range slots[1:] {
			seg, _ := s.Pin()
			if i%2 == 0 {
				s.Unref()
				readers.Go(seg.Unref)
				continue
			}
			readers.Go(s.Unref)
			readers.Go(seg.Unref)
		}
		readers.Wait()
		seg, _ := slots[0].Pin()
		assert.NotEqual(t, id, seg.ID(), "round %d", round)
		seg.Unref()
		slots[0].Unref()
		if t.Failed() {
			return
		}
	}
}

// Several at once fill arenas, empty them and read what they keep, so that arenas are moved out of, and used again, while
// slots are reserved and written. A slot that was moved before it was written showed garbage.
func TestContentStaysWhileArenasAreMovedOutOfAndUsedAgain(t *testing.T) {
	const size, keeps, rounds = 10_000, 7, 40_000
	h := heapWith(t, HeapOptions{Limit: 4 << 20}) // arenas of 256 KiB
	var checked, wrong, misplaced atomic.Int64
	var goroutines sync.WaitGroup
	for g := range 6 {
		goroutines.Go(func() {
			type written struct {
				slot    *Slot
				content byte
			}
			var kept []written
			drop := func(i int) {
				seg, offset := kept[i].slot.Pin()
				checked.Add(1)
				if b := view(seg.w.addr+uintptr(offset), size); b[0] != kept[i].content || b[size-1] != kept[i].content {
					wrong.Add(1)
				}
				seg.Unref()
				kept[i].slot.Unref()
				kept[i] = kept[len(kept)-1]
				kept = kept[:len(kept)-1]
			}
			for i := range rounds {
				s, err := h.Reserve(size, "x")
				if err != nil { // the others hold everything just now
					continue
				}
				d, err := h.Draft(size, "x")
				if err != nil {
					s.Unref()
					continue
				}
				seg, offset := s.Pin()
				content := byte(1 + (g*37+i)%250)
				copy(view(d.Address(), size), bytes.Repeat([]byte{content}, size))
				s.Write(d.Address())
				d.Release()
				if b := view(seg.w.addr+uintptr(offset), size); b[0] != content || b[size-1] != content {
					misplaced.Add(1)
				}
				seg.Unref()
				kept = append(kept, written{s, content})
				if len(kept) == keeps || i%keeps != 0 {
					drop(i % len(kept))
				}
			}
			for len(kept) > 0 {
				drop(0)
			}
		})
	}
	goroutines.Wait()
	assert.Zero(t, wrong.Load(), "of %d", checked.Load())
	assert.Zero(t, misplaced.Load())
	assert.NotZero(t, h.Stats().Moved)
}
