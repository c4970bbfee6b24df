package pool

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/shm"
)

// slotSource is a version whose arrays lie in arenas, as the engine gives them: at the place where they are when they are asked for.
type slotSource struct {
	fakeSource
	slots map[string]*shm.Slot
}

func (s *slotSource) Heavy(key string) (*Array, Presence) {
	slot := s.slots[key]
	if slot == nil {
		return nil, Absent
	}
	slot.Ref()
	return InSlot(slot, key, Layout{Descr: "<u8", Itemsize: 8, Shape: []int64{1250}, Strides: []int64{8}}), Present
}

// slot makes a small array that begins with a value.
func (f *fixture) slot(value uint64) *shm.Slot {
	f.t.Helper()
	s, err := f.heap.Reserve(10_000, "x")
	require.NoError(f.t, err)
	d, err := f.heap.Draft(10_000, "x")
	require.NoError(f.t, err)
	defer d.Release()
	binary.LittleEndian.PutUint64(bytesAt(d.Address(), 8), value)
	s.Write(d.Address())
	return s
}

func TestAnArenaIsSentOnce(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	source := &slotSource{slots: map[string]*shm.Slot{"x": f.slot(1), "y": f.slot(2)}}
	for _, s := range source.slots {
		defer s.Unref()
	}
	fetch := func(key string) string {
		c := f.call("fetch "+key, "")
		c.Source, c.Learn = source, false
		return text(f.end(f.submit(c)))
	}
	require.Equal(t, "y [1250] 2", fetch("y"))
	require.Equal(t, "x without a descriptor", fetch("x"))
}

// Its worker looks for an array where the task was told that it is, however late. Meanwhile the arena is left as it is, although
// a single array of it lives; then that is moved.
func TestASmallArrayStaysWhereItsTaskWasTold(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	survivor := f.slot(7)
	defer survivor.Unref()
	var others []*shm.Slot
	for i := range 30 { // more than the first arena takes
		others = append(others, f.slot(uint64(i)))
	}
	arena, offset := survivor.Pin()
	arena.Unref()
	gate := filepath.Join(t.TempDir(), "gate")
	call := f.call("wait-for "+gate, "")
	call.Source = &slotSource{slots: map[string]*shm.Slot{"x": survivor}}
	call.Keys = []string{"x"}
	task := f.submit(call)
	eventually(t, "the worker runs it", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return task.worker != nil && task.worker.running() == task.id
	})
	for _, s := range others {
		s.Unref()
	}
	place, at := survivor.Pin()
	require.Equal(t, fmt.Sprint(arena.ID(), offset), fmt.Sprint(place.ID(), at))
	place.Unref()
	require.Zero(t, f.heap.Stats().Moved)

	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Equal(t, "waited", text(f.end(task)))
	eventually(t, "it is moved", func() bool { return f.heap.Stats().Moved == 1 })
	place, at = survivor.Pin()
	defer place.Unref()
	require.NotEqual(t, arena.ID(), place.ID())
	base, err := place.Readable()
	require.NoError(t, err)
	require.EqualValues(t, 7, binary.LittleEndian.Uint64(bytesAt(base+uintptr(at), 8)))
}
