package state

import "sync/atomic"

// Snapshot is one version, pinned: it reads the same until it is released, and
// its arrays stay. It starts with one reference. Once the last is
// released it reads as empty, since its arrays may be gone, and holds no memory.
type Snapshot struct {
	store   *Store
	version uint64
	pin     *pin // nil: taken from a closed store
	ofTask  bool
	refs    atomic.Int64
	reads   atomic.Pointer[revision] // nil: released
}

// Version is the pinned version, also after the release.
func (sn *Snapshot) Version() uint64 { return sn.version }

// Retain adds a reference, to be given back with Release. It returns false, and
// adds nothing, when the snapshot was released already.
func (sn *Snapshot) Retain() bool {
	for {
		refs := sn.refs.Load()
		if refs == 0 {
			return false
		}
		if sn.refs.CompareAndSwap(refs, refs+1) {
			return true
		}
	}
}

// Release gives a reference back; the last one ends the pin. After that it does
// nothing.
func (sn *Snapshot) Release() {
	for {
		refs := sn.refs.Load()
		if refs == 0 {
			return
		}
		if sn.refs.CompareAndSwap(refs, refs-1) {
			if refs == 1 {
				sn.reads.Store(nil)
				sn.store.unpin(sn.pin, sn.ofTask)
			}
			return
		}
	}
}

// ForTask pins the same version once more, for a task; nil: the snapshot was released already.
func (sn *Snapshot) ForTask() *Snapshot {
	if !sn.Retain() {
		return nil
	}
	defer sn.Release()
	return sn.store.again(sn)
}

// Heavy is the array under a key. To use it beyond the snapshot, retain it
// while the snapshot is held.
func (sn *Snapshot) Heavy(key string) (Heavy, bool) {
	now := sn.reads.Load()
	if now == nil {
		return Heavy{}, false
	}
	return now.heavy.get(key)
}

// HeavyKeys lists the keys that have an array, sorted by their bytes.
func (sn *Snapshot) HeavyKeys() []string {
	now := sn.reads.Load()
	if now == nil {
		return nil
	}
	keys := make([]string, 0, now.heavy.count)
	now.heavy.each(func(key string, _ Heavy) { keys = append(keys, key) })
	return keys
}

// Value is the leaf exactly at a path. The bytes belong to the store and must not
// be changed.
func (sn *Snapshot) Value(p Path) (codec uint8, b []byte, changedAt uint64, ok bool) {
	now := sn.reads.Load()
	if now == nil {
		return 0, nil, 0, false
	}
	leaf, ok := now.data.value(p)
	if !ok {
		return 0, nil, 0, false
	}
	return leaf.codec, leaf.bytes, leaf.touched, true
}

// Walk calls fn for each leaf at or below a path until fn returns false. Leaves
// come in path order: component by component, each by its bytes. fn may keep the path; the
// bytes belong to the store and must not be changed.
func (sn *Snapshot) Walk(p Path, fn func(path Path, codec uint8, b []byte) bool) {
	if now := sn.reads.Load(); now != nil {
		now.data.walk(p, fn)
	}
}
