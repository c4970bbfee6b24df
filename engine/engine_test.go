package engine

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/pool"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open gives an engine whose workers are never started.
func open(t *testing.T, o Options) *Engine {
	t.Helper()
	watchLeftovers(t)
	o.Lazy = true
	e, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		e.Close(0)
		require.Zero(t, e.heap.Stats().InUse, "something still holds memory")
	})
	return e
}

func floats(n int64) pool.Layout {
	return pool.Layout{Descr: "<f8", Itemsize: 8, Shape: []int64{n}}
}

func at(t *testing.T, b *Buf) []float64 {
	t.Helper()
	v, err := b.View()
	require.NoError(t, err)
	return unsafe.Slice((*float64)(unsafe.Pointer(pointer(v.Data))), v.Layout.Shape[0])
}

func alloc(t *testing.T, e *Engine, key string) *Buf {
	t.Helper()
	b, err := e.Alloc(key, floats(1000), AllocOptions{})
	require.NoError(t, err)
	return b
}

func publish(t *testing.T, e *Engine, key string, b *Buf) uint64 {
	t.Helper()
	v, err := e.CAS(state.AnyVersion, []Update{{Kind: SetHeavy, Path: key, Buf: b}}, false)
	require.NoError(t, err)
	return v
}

func TestAnArrayIsSeenOnlyOnceItIsPublished(t *testing.T) {
	e := open(t, Options{})
	b := alloc(t, e, "x")
	defer b.Release()
	before, err := e.Snapshot()
	require.NoError(t, err)
	defer before.Release()
	_, err = before.Get("x")
	require.ErrorIs(t, err, ErrUnpublished)
	_, err = before.Get("y")
	require.ErrorIs(t, err, ErrNotFound)

	at(t, b)[7] = 3
	require.Equal(t, uint64(1), publish(t, e, "x", b))
	after, err := e.Snapshot()
	require.NoError(t, err)
	defer after.Release()
	got, err := after.Get("x")
	require.NoError(t, err)
	defer got.Release()
	require.Equal(t, 3.0, at(t, got)[7])
	_, err = before.Get("x")
	require.ErrorIs(t, err, ErrNotFound, "the older version does not have it")
}

func TestAWriteThroughAPointerTakenBeforePublishReachesNobody(t *testing.T) {
	for name, length := range map[string]int64{"in an arena": 1000, "in a segment of its own": 200_000} {
		t.Run(name, func(t *testing.T) {
			e := open(t, Options{})
			b, err := e.Alloc("x", floats(length), AllocOptions{})
			require.NoError(t, err)
			defer b.Release()
			stale := at(t, b)[100:200]
			stale[0] = 1
			publish(t, e, "x", b)
			stale[0] = 2
			s, err := e.Snapshot()
			require.NoError(t, err)
			defer s.Release()
			got, err := s.Get("x")
			require.NoError(t, err)
			defer got.Release()
			require.Equal(t, 1.0, at(t, got)[100])
			require.Equal(t, 2.0, stale[0])
		})
	}
}

func TestALosingCASLeavesItsArrayWritable(t *testing.T) {
	e := open(t, Options{})
	first, second := alloc(t, e, "x"), alloc(t, e, "x")
	defer first.Release()
	defer second.Release()
	publish(t, e, "x", first)
	_, err := e.CAS(0, []Update{{Kind: SetHeavy, Path: "x", Buf: second}}, false)
	var conflict *state.ConflictError
	require.ErrorAs(t, err, &conflict)
	v, err := second.View()
	require.NoError(t, err)
	require.True(t, v.Writable)
	require.False(t, v.Published)
	publish(t, e, "x", second)
}

func TestReplacedArraysGoWhenNoVersionNeedsThem(t *testing.T) {
	e := open(t, Options{})
	first := alloc(t, e, "x")
	publish(t, e, "x", first)
	first.Release()
	require.Equal(t, 1, e.heap.Stats().Segments)
	pinned, err := e.Snapshot()
	require.NoError(t, err)
	for range 5 {
		b := alloc(t, e, "x")
		publish(t, e, "x", b)
		b.Release()
	}
	require.Equal(t, 2, e.heap.Stats().Segments, "the pinned one and the current one; none between")
	pinned.Release()
	require.Equal(t, 1, e.heap.Stats().Segments)
}

func TestAnEditStartsFromTheCurrentContent(t *testing.T) {
	e := open(t, Options{})
	b := alloc(t, e, "x")
	at(t, b)[1] = 5
	publish(t, e, "x", b)
	b.Release()
	next, err := e.Edit("x", false)
	require.NoError(t, err)
	defer next.Release()
	require.Equal(t, 5.0, at(t, next)[1])
	blank, err := e.Edit("x", true)
	require.NoError(t, err)
	defer blank.Release()
	require.Zero(t, at(t, blank)[1])
	_, err = e.Edit("nothing", false)
	require.ErrorIs(t, err, ErrNotFound)
}

func TestABufOutlivesItsEngine(t *testing.T) {
	e := open(t, Options{})
	b := alloc(t, e, "x")
	at(t, b)[0] = 9
	publish(t, e, "x", b)
	e.Close(0)
	require.Equal(t, 9.0, at(t, b)[0])
	_, err := e.Alloc("y", floats(1), AllocOptions{})
	require.ErrorIs(t, err, ErrClosed)
	b.Release()
}

func TestDataIsGivenAsJSONAndInTheStateEncoding(t *testing.T) {
	e := open(t, Options{})
	_, err := e.CAS(0, []Update{
		{Kind: Set, Path: "a.b", Codec: pool.CodecJSON, Bytes: []byte("1")},
		{Kind: Set, Path: `a.c\.d`, Codec: pool.CodecJSON, Bytes: []byte(`"<x>"`)},
		{Kind: Set, Path: "raw", Codec: pool.CodecRaw, Bytes: []byte{0}},
	}, false)
	require.NoError(t, err)
	s, err := e.Snapshot()
	require.NoError(t, err)
	defer s.Release()
	text, err := s.JSON("a")
	require.NoError(t, err)
	require.Equal(t, `{"b":1,"c.d":"<x>"}`, string(text))
	_, err = s.JSON("")
	require.ErrorAs(t, err, new(*CodecError))
	_, err = s.JSON("absent")
	require.ErrorIs(t, err, ErrNotFound)
	encoded, err := s.Export("a.b")
	require.NoError(t, err)
	require.Equal(t, "\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x01\x00\x00\x00a\x01\x00\x00\x00b\x02\x01\x00\x00\x001", string(encoded))
}

func TestNonsenseIsRefused(t *testing.T) {
	e, other := open(t, Options{}), open(t, Options{})
	foreign := alloc(t, other, "x")
	defer foreign.Release()
	for name, u := range map[string]Update{
		"unknown operation": {Kind: 99, Path: "x"},
		"not empty":         {Kind: SetHeavy},
		"no array":          {Kind: SetHeavy, Path: "x"},
		"another engine":    {Kind: SetHeavy, Path: "x", Buf: foreign},
		"unknown codec":     {Kind: Set, Path: "x", Codec: 77},
		"root":              {Kind: Set, Path: "", Codec: pool.CodecJSON},
	} {
		_, err := e.CAS(state.AnyVersion, []Update{u}, false)
		require.ErrorAs(t, err, new(*ArgumentError))
		require.ErrorContains(t, err, name)
	}
	_, err := e.Alloc("x", floats(-1), AllocOptions{})
	require.ErrorContains(t, err, "negative")
	_, err = e.Execute(Call{})
	require.ErrorAs(t, err, new(*ArgumentError))
}

func TestAPoisonedEngineSaysWhy(t *testing.T) {
	e := open(t, Options{})
	e.Poison(&guard.Panic{Where: "a test", Value: "boom"})
	_, err := e.Alloc("x", floats(1), AllocOptions{})
	require.ErrorAs(t, err, new(*PoisonedError))
	require.ErrorContains(t, err, "internal error in a test: boom")
	require.Eventually(t, func() bool {
		_, err := e.pool.Submit(pool.Call{Target: "x"})
		return err != nil
	}, 5*time.Second, time.Millisecond)
}

func TestReapReportsWhatItGaveBack(t *testing.T) {
	e := open(t, Options{})
	b, err := e.Alloc("x", floats(200_000), AllocOptions{})
	require.NoError(t, err)
	r := e.Reap(func() { b.Release(); e.ReleasedLater() })
	require.Equal(t, Reaped{Segments: 1, Bytes: 391 * 4096, Handles: 1}, r)
	require.Equal(t, Reaped{}, e.Reap(func() {}))
	small := alloc(t, e, "x")
	r = e.Reap(func() { small.Release(); e.ReleasedLater() })
	require.Equal(t, uint64(1), r.Segments)
	require.GreaterOrEqual(t, r.Bytes, uint64(8000), "with what it shared with nobody")
	require.Equal(t, Reaped{}, e.Reap(func() {}))
}
