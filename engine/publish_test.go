package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// exhaustMappings takes all mappings that the process may have, but for some, and gives a function that gives them back.
func exhaustMappings(t *testing.T, butFor int) (giveBack func()) {
	t.Helper()
	heap := shm.NewHeap(shm.HeapOptions{})
	seg, err := heap.Create(1, "mapped over and over")
	require.NoError(t, err)
	var unmaps []func()
	for {
		_, unmap, err := seg.PrivateMap()
		if err != nil {
			require.ErrorAs(t, err, new(*shm.LimitError))
			break
		}
		unmaps = append(unmaps, unmap)
	}
	for _, unmap := range unmaps[:butFor] {
		unmap()
	}
	unmaps = unmaps[butFor:]
	return func() {
		for _, unmap := range unmaps {
			unmap()
		}
		seg.Unref()
	}
}

// Each array needs two more mappings to be published. With too few for the second, the first must not
// end up frozen and yet unpublished.
func TestSeveralArraysArePublishedTogetherOrNotAtAll(t *testing.T) {
	e := open(t, Options{})
	var bufs []*Buf
	var updates []Update
	for _, key := range []string{"first", "second"} {
		b, err := e.Alloc(key, floats(200_000), AllocOptions{})
		require.NoError(t, err)
		defer b.Release()
		bufs = append(bufs, b)
		updates = append(updates, Update{Kind: SetHeavy, Path: key, Buf: b})
	}
	giveBack := exhaustMappings(t, 3)
	version, err := e.CAS(0, updates, false)
	require.ErrorAs(t, err, new(*shm.LimitError))
	require.ErrorContains(t, err, `publishing "second"`)
	require.Zero(t, version)
	for i, b := range bufs {
		v, err := b.View()
		require.NoError(t, err)
		require.True(t, v.Writable)
		require.False(t, v.Published)
		at(t, b)[0] = float64(i + 1)
	}
	giveBack()

	version, err = e.CAS(0, updates, false)
	require.NoError(t, err)
	require.EqualValues(t, 1, version)
	s, err := e.Snapshot()
	require.NoError(t, err)
	defer s.Release()
	for i, key := range []string{"first", "second"} {
		got, err := s.Get(key)
		require.NoError(t, err)
		defer got.Release()
		require.Equal(t, float64(i+1), at(t, got)[0], "what was written after the failure")
	}
}

// published puts a small array with one value under a key.
func published(t *testing.T, e *Engine, key string, value float64) {
	t.Helper()
	b := alloc(t, e, key)
	defer b.Release()
	at(t, b)[0] = value
	publish(t, e, key, b)
}

func get(t *testing.T, e *Engine, key string) *Buf {
	t.Helper()
	s, err := e.Snapshot()
	require.NoError(t, err)
	defer s.Release()
	b, err := s.Get(key)
	require.NoError(t, err)
	return b
}

func TestSmallArraysShareAnArena(t *testing.T) {
	e := open(t, Options{})
	segments, offsets := map[uint64]bool{}, map[uint64]bool{}
	for i, key := range []string{"a", "b", "c", "d"} {
		published(t, e, key, float64(i))
	}
	for i, key := range []string{"a", "b", "c", "d"} {
		b := get(t, e, key)
		defer b.Release()
		require.Equal(t, float64(i), at(t, b)[0])
		v, err := b.View()
		require.NoError(t, err)
		segments[v.Segment], offsets[v.Offset] = true, true
	}
	require.Len(t, segments, 1)
	require.Len(t, offsets, 4)
	require.Equal(t, 1, e.heap.Stats().Arenas)
	require.Equal(t, 4, e.heap.Stats().Segments)
}

func TestAnArrayUnderTwoKeysIsOneMemory(t *testing.T) {
	e := open(t, Options{})
	b := alloc(t, e, "x")
	defer b.Release()
	at(t, b)[0] = 5
	publish(t, e, "x", b)
	publish(t, e, "y", b)
	require.Equal(t, 1, e.heap.Stats().Segments)
	_, err := e.CAS(state.AnyVersion, []Update{{Kind: DeleteHeavy, Path: "x"}}, false)
	require.NoError(t, err)
	y := get(t, e, "y")
	defer y.Release()
	require.Equal(t, 5.0, at(t, y)[0])
}

// A result may refer to an array that lies in an arena together with others. Published, it must keep its own bytes only.
func TestAResultThatRefersIntoAnArenaIsPublishedAsACopy(t *testing.T) {
	e := open(t, Options{})
	published(t, e, "x", 7)
	input := get(t, e, "x")
	referred := *input.array
	referred.Slot = nil // as pool.takeover makes it
	referred.Segment.Ref()
	result := &Buf{engine: e, array: &referred}
	publish(t, e, "y", result)
	result.Release()
	input.Release()
	require.Equal(t, 2, e.heap.Stats().Segments)
	y := get(t, e, "y")
	defer y.Release()
	require.Equal(t, 7.0, at(t, y)[0])
}

func TestLiveArraysHaveASegmentOfTheirOwn(t *testing.T) {
	e := open(t, Options{})
	b, err := e.Alloc("x", floats(10), AllocOptions{Live: true})
	require.NoError(t, err)
	defer b.Release()
	publish(t, e, "x", b)
	require.Zero(t, e.heap.Stats().Arenas)
	seen := get(t, e, "x")
	defer seen.Release()
	at(t, b)[1] = 3
	require.Equal(t, 3.0, at(t, seen)[1])
}

func TestAnEmptyArrayCanBePublished(t *testing.T) {
	e := open(t, Options{})
	b, err := e.Alloc("x", pool.Layout{Descr: "<f8", Itemsize: 8, Shape: []int64{0, 3}}, AllocOptions{})
	require.NoError(t, err)
	defer b.Release()
	publish(t, e, "x", b)
	got := get(t, e, "x")
	defer got.Release()
	v, err := got.View()
	require.NoError(t, err)
	require.Zero(t, v.NBytes)
}

// The result of a task is immutable when it comes, and in no version of the state; it becomes part of one like any other array.
func TestAResultThatIsPublishedSaysInWhichVersion(t *testing.T) {
	e := open(t, Options{})
	first := alloc(t, e, "x")
	defer first.Release()
	publish(t, e, "x", first)
	result := &Buf{engine: e, array: first.array.Ref()} // as ResultBuf makes it
	defer result.Release()
	v, err := result.View()
	require.NoError(t, err)
	require.Zero(t, v.Version)
	published := publish(t, e, "y", result)
	v, err = result.View()
	require.NoError(t, err)
	require.Equal(t, published, v.Version)
	publish(t, e, "z", result)
	v, err = result.View()
	require.NoError(t, err)
	require.Equal(t, published, v.Version, "the first one")
}

// What tasks have written is frozen where it lies; where somebody writes on, as a copy.
func TestAnOutputIsFrozenWhenItIsPublished(t *testing.T) {
	for name, writesOn := range map[string]bool{"nobody writes": false, "somebody writes on": true} {
		t.Run(name, func(t *testing.T) {
			e := open(t, Options{})
			b, err := e.Alloc("out", floats(3), AllocOptions{Output: true})
			require.NoError(t, err)
			defer b.Release()
			before, err := b.View()
			require.NoError(t, err)
			require.True(t, before.Writable)
			here := at(t, b)
			here[0] = 1
			a, err := b.Array()
			require.NoError(t, err, "a task may have it")
			require.True(t, a.Output)
			if writesOn {
				fd, err := a.Segment.WriterFD()
				require.NoError(t, err)
				defer unix.Close(fd)
			}
			a.Unref()

			version, err := e.CAS(state.AnyVersion, []Update{{Kind: SetHeavy, Path: "out", Buf: b}}, false)
			require.NoError(t, err)
			here[1] = 2 // the host's old address is its own by now
			after, err := b.View()
			require.NoError(t, err)
			require.Equal(t, View{
				Data: after.Data, NBytes: before.NBytes, Version: version, Segment: after.Segment,
				Layout: before.Layout, Published: true,
			}, after)
			require.Equal(t, writesOn, before.Segment != after.Segment)
			require.Equal(t, []float64{1, 0, 0}, at(t, b))
			require.Equal(t, float64(2), here[1])
			again, err := b.Array()
			require.NoError(t, err)
			require.False(t, again.Output, "no task writes it any more")
			again.Unref()
		})
	}
}
