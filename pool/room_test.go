package pool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fullOfGarbage gives a pool whose heap is full of an array that the host has let go of, and that only the garbage of an
// idle worker still maps. Nothing asks that worker for it by itself.
func fullOfGarbage(t *testing.T, workers int) *fixture {
	t.Helper()
	f := newFixture(t, workers, "zygote")
	f.options.WatchPeriod = time.Hour
	a := f.arrayIn(int64(f.heap.Stats().Limit), "x", 7)
	call := f.call("hoard x", "")
	call.Source = &fakeSource{arrays: map[string]*Array{"x": a}}
	require.Equal(t, "x [1] 7", text(f.end(f.submit(call))))
	a.Unref()
	require.True(t, f.heap.Retiring())
	return f
}

// An attempt waits for a fifth of a second, which a loaded machine may need for less than the worker's answer.
func TestAnInputFindsRoomInWhatAnIdleWorkerHoldsAsGarbage(t *testing.T) {
	f := fullOfGarbage(t, 1)
	eventually(t, "there is room", func() bool {
		v, err := f.NewValue(CodecRaw, [][]byte{make([]byte, 100_000)}, "input")
		v.Release()
		return err == nil
	})
	require.False(t, f.heap.Retiring())
}

func TestAWorkerFindsRoomInWhatAnotherHoldsAsGarbage(t *testing.T) {
	f := fullOfGarbage(t, 2)
	eventually(t, "there is room", func() bool {
		return f.run("large").Value.Segment != nil
	})
	require.False(t, f.heap.Retiring())
}
