package state

import iradix "github.com/hashicorp/go-immutable-radix/v2"

// node is what the tree holds for a path that was touched, and for each path above one.
type node struct {
	touched uint64 // the last touch of exactly this path; 0: none, or forgotten
	newest  uint64 // the last touch of this path or one below it
	nodes   int32  // nodes exactly one level below
	leaf    bool   // a value lives here
	codec   uint8
	bytes   []byte
}

// dataTree is one version of the data. It never changes.
type dataTree struct {
	nodes *iradix.Tree[node]
	floor uint64 // touches up to this version may be forgotten where no node is
}

func newDataTree() dataTree { return dataTree{nodes: iradix.New[node]()} }

// changedAt is the last version that touched the path, something above it or
// something below it, as far as it lies after expected; else 0.
func (d dataTree) changedAt(key treeKey, expected uint64) uint64 {
	var newest uint64
	found := false
	// One walk from the root to the path: only whole components are keys, so all
	// that it meets are ancestors.
	d.nodes.Root().WalkPath(key.bytes, func(k []byte, n node) bool {
		if len(k) == len(key.bytes) {
			found = true
			newest = max(newest, n.newest)
		} else {
			newest = max(newest, n.touched)
		}
		return false
	})
	if !found {
		newest = max(newest, d.floor)
	}
	if newest <= expected {
		return 0
	}
	return newest
}

// dataEdit builds the data of the next version.
type dataEdit struct {
	txn     *iradix.Txn[node]
	floor   uint64
	version uint64 // the next one
	deleted *tombstones
}

func (d dataTree) edit(version uint64, deleted *tombstones) *dataEdit {
	return &dataEdit{d.nodes.Txn(), d.floor, version, deleted}
}

func (e *dataEdit) done() dataTree { return dataTree{e.txn.CommitOnly(), e.floor} }

func (e *dataEdit) set(key treeKey, codec uint8, bytes []byte) {
	e.touch(key, node{touched: e.version, newest: e.version, leaf: true, codec: codec, bytes: bytes})
}

func (e *dataEdit) delete(key treeKey) {
	e.touch(key, node{touched: e.version, newest: e.version})
	e.deleted.add(key.bytes, e.version)
}

// touch puts a node without children at the path and tells the paths above.
func (e *dataEdit) touch(key treeKey, next node) {
	old, present := e.txn.Insert(key.bytes, next)
	if old.nodes > 0 {
		// Txn.Len is wrong after this when the nodes are of this transaction;
		// nothing here uses it.
		e.txn.DeletePrefix(key.bytes)
		e.txn.Insert(key.bytes, next)
	}
	for depth := key.depth() - 1; depth >= 0; depth-- {
		above, aboveWasPresent := e.txn.Get(key.at(depth))
		leafVanishes := above.leaf && next.leaf
		if present && above.newest == e.version && !leafVanishes {
			// An earlier operation of the same commit told it already. Go on: a
			// delete below a leaf tells those above, but leaves the leaf in place.
			continue
		}
		above.newest = e.version
		if !present {
			above.nodes++
		}
		if leafVanishes {
			above.leaf, above.codec, above.bytes = false, 0, nil
		}
		e.txn.Insert(key.at(depth), above)
		present = aboveWasPresent
	}
}

// prune forgets the oldest deletes beyond the limit.
func (e *dataEdit) prune() {
	for oldest, more := e.deleted.excess(); more; oldest, more = e.deleted.excess() {
		n, present := e.txn.Get(oldest.key)
		if present && n.touched == oldest.version {
			e.forget(oldest.key)
		}
	}
}

// forget removes a node that holds no value and has nothing below it, then those above
// it that remain for no other reason. A node above with something below it keeps its
// newest touch: what exists is always judged exactly.
func (e *dataEdit) forget(key []byte) {
	for {
		n, _ := e.txn.Get(key)
		if n.leaf || n.nodes > 0 {
			return
		}
		e.txn.Delete(key)
		e.floor = max(e.floor, n.newest)
		if len(key) == 0 {
			return
		}
		key = parentKey(key)
		above, _ := e.txn.Get(key)
		above.nodes--
		e.txn.Insert(key, above)
	}
}

// value is the leaf exactly at the path.
func (d dataTree) value(p Path) (node, bool) {
	n, _ := d.nodes.Get(encodePath(p).bytes)
	return n, n.leaf
}

// walk visits the leaves at or below the path, in path order, until visit
// returns false.
func (d dataTree) walk(p Path, visit func(path Path, codec uint8, b []byte) bool) {
	d.nodes.Root().WalkPrefix(encodePath(p).bytes, func(k []byte, n node) bool {
		return n.leaf && !visit(decodePath(k), n.codec, n.bytes)
	})
}
