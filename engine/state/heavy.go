package state

import iradix "github.com/hashicorp/go-immutable-radix/v2"

// Heavy is what stands under a heavy key in one version.
type Heavy struct {
	Array     Held
	ChangedAt uint64 // the version in which it was published under this key
}

// heavyTree is one version of the heavy keys. It never changes. A Heavy without
// an array is the tombstone of a deleted key.
type heavyTree struct {
	slots  *iradix.Tree[Heavy]
	count  int    // keys with an array
	floor  uint64 // changes up to this version may be forgotten where no slot is
	newest uint64 // the last version that touched any key
}

func newHeavyTree() heavyTree { return heavyTree{slots: iradix.New[Heavy]()} }

func (h heavyTree) get(key string) (Heavy, bool) {
	slot, _ := h.slots.Get([]byte(key))
	if slot.Array == nil {
		return Heavy{}, false
	}
	return slot, true
}

// changedAt is the last version that touched the key, as far as it lies after
// expected; else 0.
func (h heavyTree) changedAt(key []byte, expected uint64) uint64 {
	newest := h.floor
	if slot, present := h.slots.Get(key); present {
		newest = slot.ChangedAt
	}
	if newest <= expected {
		return 0
	}
	return newest
}

// anyChangedAt is the last version that touched any key, as far as it lies after expected; else 0.
func (h heavyTree) anyChangedAt(expected uint64) uint64 {
	if h.newest <= expected {
		return 0
	}
	return h.newest
}

// each visits the keys that have an array, in order.
func (h heavyTree) each(visit func(key string, slot Heavy)) {
	h.slots.Root().Walk(func(k []byte, slot Heavy) bool {
		if slot.Array != nil {
			visit(string(k), slot)
		}
		return false
	})
}

// heavyEdit builds the heavy keys of the next version.
type heavyEdit struct {
	txn     *iradix.Txn[Heavy]
	count   int
	floor   uint64
	newest  uint64
	version uint64  // the next one
	ended   []Heavy // what earlier versions had under keys that change now
	deleted *tombstones
}

func (h heavyTree) edit(version uint64, deleted *tombstones) *heavyEdit {
	return &heavyEdit{txn: h.slots.Txn(), count: h.count, floor: h.floor, newest: h.newest, version: version, deleted: deleted}
}

func (e *heavyEdit) done() heavyTree {
	return heavyTree{e.txn.CommitOnly(), e.count, e.floor, e.newest}
}

func (e *heavyEdit) set(key []byte, array Held) {
	e.count++
	e.put(key, array)
}

func (e *heavyEdit) delete(key []byte) {
	e.put(key, nil)
	e.deleted.add(key, e.version)
}

func (e *heavyEdit) put(key []byte, array Held) {
	e.newest = e.version
	old, _ := e.txn.Insert(key, Heavy{array, e.version})
	if old.Array == nil {
		return
	}
	e.count--
	// An array that the same commit put there was never part of a version.
	if old.ChangedAt != e.version {
		e.ended = append(e.ended, old)
	}
}

// prune forgets the oldest deletes beyond the limit.
func (e *heavyEdit) prune() {
	for oldest, more := e.deleted.excess(); more; oldest, more = e.deleted.excess() {
		slot, present := e.txn.Get(oldest.key)
		if present && slot.Array == nil && slot.ChangedAt == oldest.version {
			e.txn.Delete(oldest.key)
			e.floor = max(e.floor, slot.ChangedAt)
		}
	}
}
