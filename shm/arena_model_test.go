//go:build linux

package shm

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// small is a slot and what it should hold.
type small struct {
	s     *Slot
	value byte
	refs  int
}

func (a *small) want() []byte { return bytes.Repeat([]byte{a.value}, int(a.s.Len())) }

// reading is a place that someone was told of: by a pin, as views and tasks have it, or by a map of its own, as workers have it, of
// which the host may know (remote) or not, as of a process that a worker's user started.
type reading struct {
	seg    *Segment
	addr   uintptr
	own    bool
	remote bool
	offset int64
	want   []byte
}

// Random lives of small arrays: however they come, go, are moved and their memory is used again, each reads what was written
// to it, and whoever maps an arena goes on reading what was in it.
func TestLivesOfSmallArrays(t *testing.T) {
	needsWriteLeases(t)
	watch(t)
	fork := hostForks(t)
	var recycled, moved uint64
	rapid.Check(t, func(t *rapid.T) {
		drops := map[uint64]int{}
		h := NewHeap(HeapOptions{OnDrop: func(s *Segment) { drops[s.ID()]++ }})
		var arrays []*small
		var readings []*reading
		next := byte(0)
		defer func() {
			for _, r := range readings {
				r.end()
			}
			for _, a := range arrays {
				for range a.refs {
					a.s.Unref()
				}
			}
			stats := h.Stats()
			assert.Zero(t, stats.InUse)
			recycled, moved = recycled+stats.Recycled, moved+stats.Moved
			h.Close()
			assert.Zero(t, h.Stats().FreeList)
		}()
		add := func(t *rapid.T) {
			for range rapid.IntRange(1, 30).Draw(t, "how many") {
				size := rapid.SampledFrom([]int64{0, 1, 64, 5000, 40_000}).Draw(t, "size")
				s, err := h.Reserve(size, "x")
				require.NoError(t, err)
				d, err := h.Draft(size, "x")
				require.NoError(t, err)
				next++
				a := &small{s: s, value: next, refs: 1}
				copy(view(d.Address(), size), a.want())
				s.Write(d.Address())
				d.Release()
				arrays = append(arrays, a)
			}
		}
		drop := func(i int) {
			arrays[i].s.Unref()
			if arrays[i].refs--; arrays[i].refs == 0 {
				arrays = append(arrays[:i], arrays[i+1:]...)
			}
		}
		index := func(t *rapid.T, n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
		t.Repeat(map[string]func(*rapid.T){
			"add": add,
			"share": func(t *rapid.T) {
				if len(arrays) == 0 {
					add(t)
				}
				a := arrays[index(t, len(arrays))]
				a.s.Ref()
				a.refs++
			},
			"drop one": func(t *rapid.T) {
				if len(arrays) == 0 {
					add(t)
				}
				drop(index(t, len(arrays)))
			},
			"drop most": func(t *rapid.T) {
				for i := len(arrays) - 1; i >= 0; i-- {
					if rapid.IntRange(0, 9).Draw(t, "") > 0 {
						drop(i)
					}
				}
			},
			"drop all": func(*rapid.T) {
				for len(arrays) > 0 {
					drop(len(arrays) - 1)
				}
			},
			"pin": func(t *rapid.T) {
				if len(arrays) == 0 {
					add(t)
				}
				a := arrays[index(t, len(arrays))]
				seg, offset := a.s.Pin()
				base, err := seg.Readable()
				require.NoError(t, err)
				readings = append(readings, &reading{seg: seg, addr: base, offset: offset, want: a.want()})
			},
			"map": func(t *rapid.T) {
				if len(arrays) == 0 {
					add(t)
				}
				a := arrays[index(t, len(arrays))]
				seg, offset := a.s.Pin()
				defer seg.Unref()
				fd, err := seg.ReaderFD()
				require.NoError(t, err)
				defer closeFD(fd)
				addr, err := mapShared(fd, seg.Size(), false)
				require.NoError(t, err)
				r := &reading{seg: seg, addr: addr, own: true, offset: offset, want: a.want()}
				if r.remote = rapid.Bool().Draw(t, "known"); r.remote {
					seg.AddRemote()
				}
				readings = append(readings, r)
			},
			"end reading": func(t *rapid.T) {
				if len(readings) == 0 {
					return
				}
				i := index(t, len(readings))
				readings[i].end()
				readings = append(readings[:i], readings[i+1:]...)
			},
			"the host forks": func(*rapid.T) { fork() },
			"trim":           func(*rapid.T) { h.Trim(0) },
			"": func(t *rapid.T) {
				for _, a := range arrays {
					seg, offset := a.s.Pin()
					base, err := seg.Readable()
					require.NoError(t, err)
					require.True(t, bytes.Equal(a.want(), view(base+uintptr(offset), a.s.Len())), "slot %d", a.value)
					seg.Unref()
				}
				for _, r := range readings {
					require.True(t, bytes.Equal(r.want, view(r.addr+uintptr(r.offset), int64(len(r.want)))), "a reader of %d sees something else", r.seg.ID())
				}
				for id, n := range drops {
					require.Equal(t, 1, n, "segment %d was dropped", id)
				}
				require.Equal(t, len(arrays), h.Stats().Segments)
			},
		})
	})
	t.Logf("%d arenas used again, %d arrays moved", recycled, moved)
	require.NotZero(t, recycled)
	require.NotZero(t, moved)
}

func (r *reading) end() {
	if !r.own {
		r.seg.Unref()
		return
	}
	if err := unmap(r.addr, r.seg.Size()); err != nil {
		panic(err)
	}
	if r.remote {
		r.seg.DoneRemote()
	}
}
