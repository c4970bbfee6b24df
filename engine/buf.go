package engine

import (
	"fmt"
	"slices"
	"sync"

	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// Buf is an array as the host holds it: under construction, or a view of a published one. It keeps its memory until Release,
// whatever becomes of the engine.
type Buf struct {
	engine *Engine
	array  *pool.Array
	owner  bool        // this Buf allocated the array, and has settled no output: data is where it was written. Guarded by mu
	draft  *shm.Draft  // where a small array is written; nil: in its segment
	former *pool.Array // of an output that was copied: what its old address leads to. Guarded by mu

	mu       sync.Mutex // guards the rest, and array
	building bool
	version  uint64 // of the state that published it; 0: none has
	released bool
	commits  int // that are under way with it; the last of them lets go of it if it was released meanwhile
}

// View is what a Buf looks like now.
type View struct {
	Data                      uintptr
	NBytes                    uint64
	Version                   uint64
	Segment, Offset           uint64
	Layout                    pool.Layout
	Writable, Published, Live bool
}

// AllocOptions say how an array is laid out and kept.
type AllocOptions struct {
	Fortran  bool // first index varies fastest
	Live     bool // stays writable, seen at once
	Unzeroed bool // its first content may be anything: all of it will be written
	Output   bool // tasks that are given it write it as well, until it is published
}

// Alloc makes an array, zeroed unless that is waived, that will be a version of key ("": of none).
func (e *Engine) Alloc(key string, layout pool.Layout, o AllocOptions) (*Buf, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	nbytes, err := layout.NBytes()
	if err != nil {
		return nil, &ArgumentError{err.Error()}
	}
	layout.Shape = slices.Clone(layout.Shape)
	layout.Contiguous(o.Fortran)
	b := &Buf{engine: e, owner: true, building: true}
	if !o.Live && !o.Output && e.heap.Small(int64(nbytes)) {
		err = b.allocSmall(int64(nbytes), key, layout)
	} else {
		err = b.allocSegment(int64(nbytes), key, layout, o)
	}
	if err != nil {
		return nil, err
	}
	e.count(key, 1)
	return b, nil
}

func (b *Buf) allocSegment(nbytes int64, key string, layout pool.Layout, o AllocOptions) error {
	create := b.engine.heap.Create
	switch {
	case o.Live:
		create = b.engine.heap.CreateLive
	case o.Output:
		create = b.engine.heap.CreateOutput
	case o.Unzeroed:
		create = b.engine.heap.CreateUnzeroed
	}
	return b.engine.pool.WithRoom(func() error {
		seg, err := create(nbytes, labelOf(key))
		b.array = &pool.Array{Segment: seg, Key: key, Live: o.Live, Output: o.Output, Layout: layout}
		return err
	})
}

// allocSmall reserves the slot where the array will be published, so that a full machine is an error now, and
// gives it memory to be written in until then.
func (b *Buf) allocSmall(nbytes int64, key string, layout pool.Layout) error {
	var slot *shm.Slot
	err := b.engine.pool.WithRoom(func() (err error) {
		if slot, err = b.engine.heap.Reserve(nbytes, labelOf(key)); err != nil {
			return err
		}
		if b.draft, err = b.engine.heap.Draft(nbytes, labelOf(key)); err != nil {
			slot.Discard()
		}
		return err
	})
	if err != nil {
		return err
	}
	b.array = pool.InSlot(slot, key, layout)
	return nil
}

// reserve takes a slot of an arena.
func (e *Engine) reserve(nbytes int64, key string) (slot *shm.Slot, err error) {
	err = e.pool.WithRoom(func() error {
		slot, err = e.heap.Reserve(nbytes, labelOf(key))
		return err
	})
	return slot, err
}

// labelOf names an array in messages about memory.
func labelOf(key string) string {
	if key == "" {
		return "(unnamed)"
	}
	return key
}

// ArgumentError is a mistake of the caller's.
type ArgumentError struct{ Text string }

func (e *ArgumentError) Error() string { return e.Text }

// longestKey is a key's size in bytes: keys travel in frames, of which workers send none above 64 KiB.
const longestKey = 4096

// checkNamed is checkKey where there has to be one.
func checkNamed(key string) error {
	if key == "" {
		return &ArgumentError{"a heavy array needs a key that is not empty"}
	}
	return checkKey(key)
}

func checkKey(key string) error {
	if len(key) > longestKey {
		return &ArgumentError{fmt.Sprintf("the heavy key %.40q… has %d bytes, more than %d", key, len(key), longestKey)}
	}
	return nil
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
	b, err := e.Alloc(key, layout, AllocOptions{
		Fortran: fortran(&layout), Live: current.array.Live, Unzeroed: !blank,
	})
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
		NBytes: nbytes, Version: b.version, Segment: a.Segment.ID(), Offset: a.Offset, Layout: a.Layout,
		Live: a.Live, Published: !b.building, Writable: b.owner && (b.building || a.Live),
	}
	switch {
	case b.draft != nil:
		v.Data = b.draft.Address()
		return v, nil
	case b.owner:
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
	released := b.released
	b.released = true
	now := !released && b.commits == 0
	b.mu.Unlock()
	if now {
		b.letGo()
	}
}

// letGo gives up what a released array holds: nobody uses it any more.
func (b *Buf) letGo() {
	if b.building {
		b.engine.count(b.array.Key, -1)
	}
	b.array.Unref()
	if b.draft != nil {
		b.draft.Release()
	}
	if b.former != nil {
		b.former.Unref()
	}
}

// hold gives the array with a reference of its own. mu is held.
func (b *Buf) hold() (*pool.Array, error) {
	if b.released { // by another thread, after this one had found the handle
		return nil, ErrReleased
	}
	return b.array.Ref(), nil
}

// Array gives the array with a reference of its own, for a task that refers to it. It must be published, live or an output.
func (b *Buf) Array() (*pool.Array, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.released && b.building && !b.array.Live && !b.array.Output {
		return nil, &KeyError{Key: b.array.Key, Kind: ErrUnpublished, Hint: ": a task would see it change"}
	}
	return b.hold()
}
