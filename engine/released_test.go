package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
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
