package engine

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
	"pgregory.net/rapid"
)

func openWindow(t require.TestingT, e *Engine, rows uint64, shape ...int64) *Window {
	w, err := e.OpenWindow("ticks", pool.Layout{Descr: "<f8", Itemsize: 8, Shape: shape}, rows)
	require.NoError(t, err)
	return w
}

// add appends numbers; width of them are a row.
func add(t require.TestingT, w *Window, width int, values ...float64) *Buf {
	b, err := w.Append(uintptr(unsafe.Pointer(unsafe.SliceData(values))), uint64(len(values)/width))
	runtime.KeepAlive(values)
	require.NoError(t, err)
	return b
}

func read(t require.TestingT, b *Buf) []float64 {
	v, err := b.View()
	require.NoError(t, err)
	return unsafe.Slice((*float64)(unsafe.Pointer(pointer(v.Data))), v.NBytes/8)
}

func TestAWindowShowsTheNewestRows(t *testing.T) {
	e := open(t, Options{})
	w := openWindow(t, e, 3, 2)
	defer w.Release()
	empty := add(t, w, 2)
	defer empty.Release()
	v, err := empty.View()
	require.NoError(t, err)
	require.Equal(t, []int64{0, 2}, v.Layout.Shape)

	first := add(t, w, 2, 1, 1, 2, 2)
	defer first.Release()
	second := add(t, w, 2, 3, 3, 4, 4)
	defer second.Release()
	require.Equal(t, []float64{1, 1, 2, 2}, read(t, first))
	require.Equal(t, []float64{2, 2, 3, 3, 4, 4}, read(t, second))
	v, err = second.View()
	require.NoError(t, err)
	require.Equal(t, []int64{3, 2}, v.Layout.Shape)
	require.Equal(t, []int64{16, 8}, v.Layout.Strides)
	require.False(t, v.Writable)
	require.EqualValues(t, 2, publish(t, e, "ticks", first)+publish(t, e, "ticks", second)-1)
	v, err = second.View()
	require.NoError(t, err)
	require.EqualValues(t, 2, v.Version)

	all := add(t, w, 2, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9)
	defer all.Release()
	require.Equal(t, []float64{7, 7, 8, 8, 9, 9}, read(t, all), "of more rows than it shows, the last")
}

// Whatever is appended: each window has the newest rows, and those that were given out before go on showing what they showed.
func TestWindowsNeverChange(t *testing.T) {
	e := open(t, Options{})
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.Uint64Range(1, 9000).Draw(t, "rows") // two windows of 4096 rows fill the smallest segment
		w := openWindow(t, e, rows)
		type window struct {
			buf   *Buf
			first int
			last  int
		}
		var given []window
		next := 0
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 5000), 1, 12).Draw(t, "appends") {
			values := make([]float64, n)
			for i := range values {
				values[i] = float64(next)
				next++
			}
			given = append(given, window{add(t, w, 1, values...), max(0, next-int(rows)), next})
			for _, old := range given {
				shown := read(t, old.buf)
				require.Len(t, shown, old.last-old.first)
				for i, value := range shown {
					if value != float64(old.first+i) {
						t.Fatalf("row %d of the window that ends at %d is %v", i, old.last, value)
					}
				}
			}
		}
		w.Release()
		for _, old := range given {
			old.buf.Release()
		}
	})
	require.Zero(t, e.heap.Stats().Segments)
}

func TestAnAppendThatFindsNoRoomChangesNothing(t *testing.T) {
	e := open(t, Options{HeapBytes: 3 << 20})
	w := openWindow(t, e, 1<<16) // 1 MiB of room
	half := make([]float64, 1<<15)
	var held []*Buf
	for range 4 {
		held = append(held, add(t, w, 1, half...))
	}
	other, err := e.Alloc("other", floats(1<<18), AllocOptions{}) // 2 MiB
	require.NoError(t, err)
	half[0] = 1
	_, err = w.Append(uintptr(unsafe.Pointer(&half[0])), 1<<15)
	require.ErrorAs(t, err, new(*shm.FullError))
	other.Release()
	b := add(t, w, 1, half...)
	require.EqualValues(t, []float64{0, 1}, []float64{read(t, b)[0], read(t, b)[1<<15]})
	require.Len(t, read(t, b), 1<<16)
	b.Release()
	w.Release()
	for _, b := range held {
		b.Release()
	}
}

func TestAWindowOutlivesNothing(t *testing.T) {
	e := open(t, Options{})
	w := openWindow(t, e, 10)
	b := add(t, w, 1, 1, 2, 3)
	w.Release()
	w.Release()
	_, err := w.Append(0, 0)
	require.ErrorIs(t, err, ErrReleased)
	publish(t, e, "ticks", b)
	closed := openWindow(t, e, 10)
	e.Close(0)
	_, err = closed.Append(0, 0)
	require.ErrorIs(t, err, ErrClosed)
	closed.Release()
	require.Equal(t, []float64{1, 2, 3}, read(t, b))
	b.Release()
}

func TestNoWindowOfNonsense(t *testing.T) {
	e := open(t, Options{HeapBytes: 1 << 20})
	row := func(shape ...int64) pool.Layout { return pool.Layout{Descr: "<f8", Itemsize: 8, Shape: shape} }
	for message, try := range map[string]func() (*Window, error){
		"a key":                         func() (*Window, error) { return e.OpenWindow("", row(), 1) },
		"at least one row":              func() (*Window, error) { return e.OpenWindow("k", row(), 0) },
		"has no bytes":                  func() (*Window, error) { return e.OpenWindow("k", row(3, 0), 1) },
		"cannot be negative":            func() (*Window, error) { return e.OpenWindow("k", row(-1), 1) },
		"larger than any address space": func() (*Window, error) { return e.OpenWindow("k", row(), 1<<58) },
		"at most 31 dimensions":         func() (*Window, error) { return e.OpenWindow("k", row(make([]int64, 32)...), 1) },
	} {
		_, err := try()
		require.ErrorContains(t, err, message)
		require.ErrorAs(t, err, new(*ArgumentError))
	}
	_, err := e.OpenWindow("k", row(), 1<<20)
	require.ErrorAs(t, err, new(*shm.FullError))
}
