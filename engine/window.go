package engine

import (
	"fmt"
	"slices"
	"sync"

	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// Window is the newest rows of a series that grows at its end. Each row is written once, behind those before it, and what
// was given out as a window shows only what was written by then: so later rows never touch it, and all windows lie in one piece.
// When a segment has no room left, the rows that are still to be seen are copied to the beginning of the next one.
type Window struct {
	engine *Engine
	key    string
	row    pool.Layout // without strides
	nbytes int64       // of a row
	most   int64       // rows to be seen

	mu       sync.Mutex   // guards the rest
	segment  *shm.Segment // a reference; nil: released
	seen     int64        // rows in the window
	end      int64        // rows in the segment
	capacity int64        // rows that the segment has room for
}

// A segment has room for this many windows, and for so many bytes: half of the rows, or fewer, are then written twice.
const (
	windowsInSegment = 2
	leastWindow      = 64 << 10
)

// OpenWindow makes an empty window that will show the newest rows.
func (e *Engine) OpenWindow(key string, row pool.Layout, rows uint64) (*Window, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	if err := checkNamed(key); err != nil {
		return nil, err
	}
	nbytes, err := row.NBytes()
	switch {
	case len(row.Shape) >= pool.MaxNDim:
		return nil, &ArgumentError{fmt.Sprintf("a row has at most %d dimensions, one less than an array", pool.MaxNDim-1)}
	case err != nil:
		return nil, &ArgumentError{err.Error()}
	case nbytes == 0:
		return nil, &ArgumentError{fmt.Sprintf("a row of shape %v with items of %d bytes has no bytes", row.Shape, row.Itemsize)}
	case rows == 0:
		return nil, &ArgumentError{"a window shows at least one row"}
	case rows > largestWindow/nbytes:
		return nil, &ArgumentError{fmt.Sprintf("%d rows of %d bytes are larger than any address space", rows, nbytes)}
	}
	row.Shape = slices.Clone(row.Shape)
	w := &Window{engine: e, key: key, row: row, nbytes: int64(nbytes), most: int64(rows)}
	if w.segment, err = w.newSegment(); err != nil {
		return nil, err
	}
	w.capacity = w.segment.Size() / w.nbytes
	return w, nil
}

const largestWindow = 1 << 60

func (w *Window) newSegment() (seg *shm.Segment, err error) {
	size := max(windowsInSegment*w.most*w.nbytes, leastWindow)
	err = w.engine.pool.WithRoom(func() error {
		seg, err = w.engine.heap.CreateAppended(size, labelOf(w.key))
		return err
	})
	if err != nil {
		return nil, err
	}
	// The map for readers now: without one the window could be appended to and not be shown.
	if _, err := seg.Readable(); err != nil {
		seg.Unref()
		return nil, err
	}
	return seg, nil
}

// Append writes rows, which lie in one piece at an address, behind the others, and gives the window that ends with them. It is not
// published yet. Errors as of Alloc; then nothing was appended.
func (w *Window) Append(from uintptr, rows uint64) (*Buf, error) {
	if err := w.engine.Check(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.segment == nil {
		return nil, ErrReleased
	}
	if most := uint64(w.most); rows > most { // the first of them would never be seen
		from += uintptr((rows - most) * uint64(w.nbytes))
		rows = most
	}
	added := int64(rows)
	if added > w.capacity-w.end {
		if err := w.moveOn(min(w.seen, w.most-added)); err != nil {
			return nil, err
		}
	}
	w.write(w.segment, from, added)
	w.end += added
	w.seen = min(w.seen+added, w.most)
	return w.buf(), nil
}

// moveOn goes on in another segment, with so many of the newest rows.
func (w *Window) moveOn(kept int64) error {
	next, err := w.newSegment()
	if err != nil {
		return err
	}
	from, err := w.segment.Readable()
	if err != nil {
		next.Unref()
		return err
	}
	w.write(next, from+uintptr((w.end-kept)*w.nbytes), kept)
	w.segment.Unref()
	w.segment, w.end, w.seen = next, kept, kept
	return nil
}

// write appends rows for which there is room.
func (w *Window) write(to *shm.Segment, from uintptr, rows int64) {
	if _, ok := to.Append(from, rows*w.nbytes); !ok {
		panic(fmt.Sprintf("no room for %d rows in the window of %q", rows, w.key))
	}
}

// buf gives the window as an array. mu is held.
func (w *Window) buf() *Buf {
	layout := w.row
	layout.Shape = append([]int64{w.seen}, w.row.Shape...)
	layout.Contiguous(false)
	w.segment.Ref()
	return &Buf{engine: w.engine, array: &pool.Array{
		Segment: w.segment, Offset: uint64((w.end - w.seen) * w.nbytes), Key: w.key, Layout: layout,
	}}
}

// Release lets go of the window; what it gave out stays.
func (w *Window) Release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.segment != nil {
		w.segment.Unref()
		w.segment = nil
	}
}
