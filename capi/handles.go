package main

import (
	"errors"
	"sync"
)

// errBadHandle becomes THEUS_EBADF.
var errBadHandle = errors.New("stale, foreign or mistyped handle (released before, perhaps)")

// table maps handles to objects. A handle is generation<<32 | index+handleBase: a slot's generation grows with each use, so
// a stale handle never names a new object; a small number, a pointer or a descriptor never names any.
type table struct {
	mu    sync.RWMutex // guards slots and free
	slots []slot
	free  []uint32
}

type slot struct {
	generation uint32
	object     any
}

const handleBase = 0x5401

var handles table

func (t *table) add(object any) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var index uint32
	if n := len(t.free); n > 0 {
		index = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		index = uint32(len(t.slots))
		t.slots = append(t.slots, slot{})
	}
	s := &t.slots[index]
	s.generation++
	s.object = object
	return uint64(s.generation)<<32 | uint64(index+handleBase)
}

func (t *table) find(h uint64) *slot {
	index := uint32(h) - handleBase
	if int(index) >= len(t.slots) {
		return nil
	}
	if s := &t.slots[index]; s.generation == uint32(h>>32) && s.object != nil {
		return s
	}
	return nil
}

func (t *table) get(h uint64) any {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if s := t.find(h); s != nil {
		return s.object
	}
	return nil
}

// take removes an entry and returns it.
func (t *table) take(h uint64) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.find(h)
	if s == nil {
		return nil
	}
	object := s.object
	s.object = nil
	t.free = append(t.free, uint32(h)-handleBase)
	return object
}

// lookup finds the object of type T behind a handle.
func lookup[T any](h uint64) (T, error) {
	object, ok := handles.get(h).(T)
	if !ok {
		return object, errBadHandle
	}
	return object, nil
}
