package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// Buf is an array as the host holds it: under construction, or a view of a published one. It keeps its memory until Release,
// whatever becomes of the engine.
type Buf struct {
	engine *Engine
	array  *pool.Array
	owner  bool // this Buf allocated the array: data is where it was written

	mu       sync.Mutex // guards the rest
	building bool
	version  uint64 // of the state that published it; 0: none has
	released bool
}

// View is what a Buf looks like now.
type View struct {
	Data                      uintptr
	NBytes                    uint64
	Version                   uint64
	Segment                   uint64
	Layout                    pool.Layout
	Writable, Published, Live bool
}

// AllocOptions say how an array is laid out and kept.
type AllocOptions struct {
	Fortran bool // first index varies fastest
	Live    bool // stays writable, seen at once
}

// patience is how long an allocation waits for workers to let go of retired memory before it fails.
const patience = 200 * time.Millisecond

// Alloc makes a zeroed array that will be a version of key ("": of none).
func (e *Engine) Alloc(key string, layout pool.Layout, o AllocOptions) (*Buf, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	nbytes, err := layout.NBytes()
	if err != nil {
		return nil, &ArgumentError{err.Error()}
	}
	layout.Shape = slices.Clone(layout.Shape)
	layout.Contiguous(o.Fortran)
	seg, err := e.create(int64(nbytes), key, o.Live)
	if err != nil {
		return nil, err
	}
	b := &Buf{
		engine: e, owner: true, building: true,
		array: &pool.Array{Segment: seg, Key: key, Live: o.Live, Layout: layout},
	}
	e.count(key, 1)
	return b, nil
}

// ArgumentError is a mistake of the caller's.
type ArgumentError struct{ Text string }

func (e *ArgumentError) Error() string { return e.Text }

// create makes a segment; when the heap is full of memory that workers are about to let go of, it waits for them a little.
func (e *Engine) create(nbytes int64, key string, live bool) (*shm.Segment, error) {
	label := key
	if label == "" {
		label = "(unnamed)"
	}
	make := e.heap.Create
	if live {
		make = e.heap.CreateLive
	}
	deadline := time.Now().Add(patience)
	for {
		retired := e.pool.Retired()
		seg, err := make(nbytes, label)
		var full *shm.FullError
		if err == nil || !errors.As(err, &full) || e.heap.Stats().Retiring == 0 {
			return seg, err
		}
		select {
		case <-retired:
		case <-time.After(time.Until(deadline)):
			return nil, err
		}
	}
}

// Edit makes a writable array of the same layout as key has now, with its content unless blank.
func (e *Engine) Edit(key string, blank bool) (*Buf, error) {
	snap, err := e.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Release()
	current, err := snap.Get(key)
	if err != nil {
		return nil, err
	}
	defer current.Release()
	layout := current.array.Layout
	b, err := e.Alloc(key, layout, AllocOptions{Fortran: fortran(&layout), Live: current.array.Live})
	if err != nil || blank {
		return b, err
	}
	from, err := current.View()
	if err != nil {
		b.Release()
		return nil, err
	}
	to, err := b.View()
	if err != nil {
		b.Release()
		return nil, err
	}
	copyBytes(to.Data, from.Data, from.NBytes)
	return b, nil
}

// fortran reports whether an array is laid out with its first index fastest, and not also C-contiguous.
func fortran(l *pool.Layout) bool {
	c := pool.Layout{Itemsize: l.Itemsize, Shape: l.Shape}
	c.Contiguous(false)
	return !slices.Equal(c.Strides, l.Strides)
}

// count keeps the number of arrays under construction for a key.
func (e *Engine) count(key string, n int) {
	if key == "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.building[key] += n; e.building[key] <= 0 {
		delete(e.building, key)
	}
}

func (e *Engine) isBuilding(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.building[key] > 0
}

// View says where the array is and what it looks like.
func (b *Buf) View() (View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return View{}, ErrReleased
	}
	a := b.array
	nbytes, _ := a.Layout.NBytes()
	v := View{
		NBytes: nbytes, Version: b.version, Segment: a.Segment.ID(), Layout: a.Layout,
		Live: a.Live, Published: !b.building, Writable: b.owner && (b.building || a.Live),
	}
	if b.owner {
		v.Data = a.Segment.Address()
		return v, nil
	}
	base, err := a.Segment.Readable()
	v.Data = base + uintptr(a.Offset)
	return v, err
}

// Release lets go of the array. A second call is refused by the handle table, not here.
func (b *Buf) Release() {
	b.mu.Lock()
	building, released := b.building, b.released
	b.building, b.released = false, true
	b.mu.Unlock()
	if released {
		return
	}
	if building {
		b.engine.count(b.array.Key, -1)
	}
	b.array.Unref()
}

// freeze makes the array ready to be seen by others. The state's lock is held: it happens only if the CAS will succeed.
func (b *Buf) freeze(version uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.building {
		return nil
	}
	if err := b.array.Segment.Freeze(); err != nil {
		return fmt.Errorf("publishing %q: %w", b.array.Key, err)
	}
	b.building = false
	b.version = version
	b.engine.count(b.array.Key, -1)
	return nil
}

// keep gives the array with a reference of its own, in whatever state it is.
func (b *Buf) keep() (*pool.Array, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hold()
}

// hold is keep with mu held.
func (b *Buf) hold() (*pool.Array, error) {
	if b.released { // by another thread, after this one had found the handle
		return nil, ErrReleased
	}
	return b.array.Ref(), nil
}

// Array gives the array with a reference of its own, for a task that refers to it. It must be published.
func (b *Buf) Array() (*pool.Array, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.building && !b.array.Live {
		return nil, &KeyError{Key: b.array.Key, Kind: ErrUnpublished, Hint: ": a task would see it change"}
	}
	return b.hold()
}
