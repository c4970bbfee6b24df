package engine

import "github.com/theus-project/theus-go/pool"

// entry is an array as the state holds it. Of a small array it holds the slot and not the place: while nobody
// reads it, it may be moved.
type entry struct {
	array pool.Array // Segment and Offset mean nothing if it has a Slot
}

// Retain implements state.Held.
func (e *entry) Retain() {
	if e.array.Slot != nil {
		e.array.Slot.Ref()
		return
	}
	e.array.Segment.Ref()
}

// Release implements state.Held.
func (e *entry) Release() {
	if e.array.Slot != nil {
		e.array.Slot.Unref()
		return
	}
	e.array.Segment.Unref()
}

// read gives the array with a reference, at the place where it is now. The state holds it meanwhile.
func (e *entry) read() *pool.Array {
	a := e.array
	if a.Slot == nil {
		return a.Ref()
	}
	a.Slot.Ref()
	seg, offset := a.Slot.Pin()
	a.Segment, a.Offset = seg, uint64(offset)
	return &a
}
