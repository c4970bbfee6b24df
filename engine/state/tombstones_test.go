package state

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
)

func lost(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict)
}

// Reader A saw "absent" at version 10. Somebody creates and deletes. A's write must fail.
func TestDeleteAndRecreateDoesNotPassAStaleCAS(t *testing.T) {
	for _, limit := range []int{0, 1, 100} {
		s := newStore(limit)
		x := newArray(t, "x")
		for range 10 {
			mustCommit(t, s, set("unrelated", "1"))
		}
		mustCommit(t, s, set("a.b", "1"), setHeavy("k", x))
		mustCommit(t, s, del("a.b"), delHeavy("k"))
		for _, op := range []Op{set("a.b", "2"), set("a", "2"), set("a.b.c", "2"), setHeavy("k", x)} {
			if _, err := s.CAS(10, []Op{op}, false); !lost(err) {
				t.Errorf("limit %d: %v %s%s passed: %v", limit, op.Kind, op.Path, op.Key, err)
			}
		}
		if _, err := s.CAS(12, []Op{set("a.b", "2"), setHeavy("k", x)}, false); err != nil {
			t.Errorf("limit %d: a CAS at the current version failed: %v", limit, err)
		}
	}
}

func TestFloorSparesWhatExists(t *testing.T) {
	s := newStore(0)
	x := newArray(t, "x")
	mustCommit(t, s, set("kept.leaf", "1"), setHeavy("kept", x))
	mustCommit(t, s, set("gone", "1"), setHeavy("gone", x))
	mustCommit(t, s, del("gone"), delHeavy("gone"))
	for _, op := range []Op{set("kept.leaf", "2"), setHeavy("kept", x)} {
		if _, err := s.CAS(1, []Op{op}, false); err != nil {
			t.Errorf("%v of what did not change: %v", op.Kind, err)
		}
	}
	// What is absent might have been there after version 1: conservative.
	for _, op := range []Op{set("never", "1"), set("kept.other", "1"), setHeavy("never", x)} {
		if _, err := s.CAS(1, []Op{op}, false); !lost(err) {
			t.Errorf("%v of something absent below the floor passed: %v", op.Kind, err)
		}
	}
	if _, err := s.CAS(3, []Op{set("never", "1"), setHeavy("never", x)}, false); err != nil {
		t.Errorf("at the floor: %v", err)
	}
}

// A delete that was followed by another one of the same key is no reason to
// forget the later one: that would raise the floor for everybody.
func TestStaleDeletesDoNotRaiseTheFloor(t *testing.T) {
	s := newStore(2)
	mustCommit(t, s, set("unrelated", "1"))
	for range 2 { // in versions 2 and 4
		mustCommit(t, s, del("again"), delHeavy("again"))
		mustCommit(t, s, set("again", "1"), setHeavy("again", newArray(t, "again")))
	}
	mustCommit(t, s, del("again"), delHeavy("again")) // version 6: the entry of version 2 goes
	if n, m := s.deletedPaths.len(), s.deletedKeys.len(); n != 2 || m != 2 {
		t.Fatalf("%d and %d deletes are remembered, want 2", n, m)
	}
	if _, err := s.CAS(1, []Op{set("never", "1"), setHeavy("never", newArray(t, "never"))}, false); err != nil {
		t.Errorf("nothing was forgotten yet: %v", err)
	}
}

func TestTombstonesAreBounded(t *testing.T) {
	const limit = 100
	s := newStore(limit)
	for i := range 20 * limit {
		key := fmt.Sprintf("task%d", i)
		path := Path{"results", key, "deep", "er"}
		mustCommit(t, s, Op{Kind: Set, Path: path}, setHeavy(key, newArray(t, key)))
		mustCommit(t, s, Op{Kind: Delete, Path: path}, delHeavy(key))
		if s.deletedPaths.len() > limit || s.deletedKeys.len() > limit {
			t.Fatalf("%d and %d deletes are remembered", s.deletedPaths.len(), s.deletedKeys.len())
		}
		if n := cap(s.deletedPaths.queue); n > 8*limit {
			t.Fatalf("the list has room for %d", n)
		}
	}
	now := s.current.Load()
	if nodes := now.data.nodes.Len(); nodes > 3*limit+2 {
		t.Errorf("%d nodes are left for %d deletes of depth 4", nodes, limit)
	}
	if slots := now.heavy.slots.Len(); slots > limit {
		t.Errorf("%d slots are left", slots)
	}
	// One key, created and deleted for ever.
	for range 20 * limit {
		mustCommit(t, s, set("same", "1"))
		mustCommit(t, s, del("same"))
	}
	if nodes := s.current.Load().data.nodes.Len(); nodes > 3 {
		t.Errorf("%d nodes are left for one deleted path", nodes)
	}
}

// Replacing values for ever must not make the state grow.
func TestReplacingDoesNotGrow(t *testing.T) {
	s := New()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round := func() {
		for i := range 20_000 {
			mustCommit(t, s, set(fmt.Sprintf("a.b%d", i%10), "x"), set("c", "y"))
		}
	}
	round()
	before := heap()
	round()
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	runtime.KeepAlive(s)
}
