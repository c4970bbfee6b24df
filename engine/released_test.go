package engine

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/pool"
)

// One thread may release what another is about to use: that is the caller's mistake, and no bug that poisons the engine.
func TestWhatWasReleasedMeanwhileIsAnErrorNotAPanic(t *testing.T) {
	e, err := Open(Options{Lazy: true, HeapBytes: 1 << 20})
	require.NoError(t, err)
	defer e.Close(0)
	b, err := e.Alloc("x", pool.Layout{Descr: "<u8", Itemsize: 8, Shape: []int64{1}}, AllocOptions{})
	require.NoError(t, err)
	_, err = e.CAS(0, []Update{{Kind: SetHeavy, Path: "x", Buf: b}}, false)
	require.NoError(t, err)
	b.Release()

	_, err = e.CAS(1, []Update{{Kind: SetHeavy, Path: "y", Buf: b}}, false)
	require.ErrorIs(t, err, ErrReleased)
	_, err = b.Array()
	require.ErrorIs(t, err, ErrReleased)
	_, err = b.View()
	require.ErrorIs(t, err, ErrReleased)

	s, err := e.Snapshot()
	require.NoError(t, err)
	s.Release()
	_, err = s.Get("x")
	require.ErrorIs(t, err, ErrReleased)
	_, err = e.Execute(Call{Target: "a:b", At: s})
	require.ErrorIs(t, err, ErrReleased)
}

// What is released in the middle of its commit is published as it was written, and given up afterwards.
func TestAReleaseDuringACommit(t *testing.T) {
	for _, elements := range []int64{10, 200_000} { // in an arena, and in a segment of its own
		e := open(t, Options{})
		b, err := e.Alloc("x", floats(elements), AllocOptions{})
		require.NoError(t, err)
		values := at(t, b)
		values[0], values[elements-1] = 1, 2
		var committer sync.WaitGroup
		var committed error
		// A commit that is refused in the end keeps the other one waiting in the middle.
		other := []state.Op{{Kind: state.DeleteHeavy, Key: "none"}}
		_, err = e.store.CASWith(0, other, false, func(uint64) error {
			committer.Go(func() {
				_, committed = e.CAS(0, []Update{{Kind: SetHeavy, Path: "x", Buf: b}}, false)
			})
			for !committing(b) {
				runtime.Gosched()
			}
			b.Release()
			return errors.New("refused")
		})
		require.EqualError(t, err, "refused")
		committer.Wait()
		require.NoError(t, committed)
		got := get(t, e, "x")
		seen := at(t, got)
		require.Equal(t, []float64{1, 2}, []float64{seen[0], seen[elements-1]})
		got.Release()
		require.False(t, e.isBuilding("x"))
	}
}

func committing(b *Buf) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.commits > 0
}
