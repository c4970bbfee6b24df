package state

import (
	"maps"
	"slices"

	"pgregory.net/rapid"
)

// What the model demands of the store, after each action and of each CAS.

// check runs after each action.
func (m *model) check(t *rapid.T) {
	if got := m.store.Version(); got != m.now() {
		t.Fatalf("version %d, want %d", got, m.now())
	}
	for _, sn := range m.snapshots {
		checkReads(t, sn.real, sn.at, sn.want)
	}
	current := m.store.Snapshot()
	want := m.versions[m.now()]
	if m.closed {
		want = modelVersion{}
	}
	checkReads(t, current, m.now(), want)
	current.Release()
	if got := m.store.Stats().Arrays; got != len(want.heavy) {
		t.Fatalf("the current version has %d arrays, want %d", got, len(want.heavy))
	}
	if got := m.store.Conflicts(); !maps.Equal(got, m.conflicts) {
		t.Fatalf("conflict counts %v, want %v", got, m.conflicts)
	}
	m.checkHolders(t)
}

// checkHolders: held while a pin or the current version has it, and not a moment longer.
func (m *model) checkHolders(t *rapid.T) {
	want := map[*testArray]int64{}
	waiting := 0
	for _, life := range m.lives {
		if life.end == AnyVersion {
			want[life.array]++
			continue
		}
		for _, sn := range m.snapshots {
			// Those taken after Close have the same version, but pin nothing.
			if sn.refs > 0 && sn.want.heavy != nil && life.born <= sn.at && sn.at < life.end {
				want[life.array]++
				waiting++
				break
			}
		}
	}
	for _, a := range m.arrays {
		if got := a.held(); got != want[a] {
			t.Fatalf("array %s is held %d times, want %d", a.name, got, want[a])
		}
	}
	if got := m.store.Stats().Retired; got != waiting {
		t.Fatalf("%d arrays wait, want %d", got, waiting)
	}
}

func checkReads(t *rapid.T, sn *Snapshot, version uint64, want modelVersion) {
	if sn.Version() != version {
		t.Fatalf("snapshot of version %d says %d", version, sn.Version())
	}
	leaves := slices.SortedFunc(maps.Values(want.data), func(a, b modelLeaf) int { return slices.Compare(a.path, b.path) })
	for _, from := range []Path{{}, {"a"}, {"b"}, {"a.b"}, {"a", "a"}, {"b", "a\x00"}, {"x"}} {
		below := slices.DeleteFunc(slices.Clone(leaves), func(l modelLeaf) bool { return !isPrefix(from, l.path) })
		sn.Walk(from, func(p Path, codec uint8, b []byte) bool {
			if len(below) == 0 || !slices.Equal(p, below[0].path) || codec != below[0].codec || string(b) != below[0].bytes {
				t.Fatalf("version %d from %q: found %q = %d %q, want %v", version, from, p, codec, b, below)
			}
			below = below[1:]
			return true
		})
		if len(below) > 0 {
			t.Fatalf("version %d from %q: not found: %v", version, from, below)
		}
		leaf, exists := want.data[joined(from)]
		codec, b, changedAt, ok := sn.Value(from)
		if ok != exists || codec != leaf.codec || string(b) != leaf.bytes || changedAt != leaf.changedAt {
			t.Fatalf("version %d at %q: %d %q changed at %d, %v; want %v", version, from, codec, b, changedAt, ok, leaf)
		}
	}
	keys := slices.Sorted(maps.Keys(want.heavy))
	if got := sn.HeavyKeys(); !slices.Equal(got, keys) {
		t.Fatalf("version %d: keys %q, want %q", version, got, keys)
	}
	for _, key := range []string{"k", "k.1", "l", "m"} {
		if slot, ok := sn.Heavy(key); ok != slices.Contains(keys, key) || slot != want.heavy[key] {
			t.Fatalf("version %d, key %q: %v, want %v", version, key, slot, want.heavy[key])
		}
	}
}

// checkConflicts compares with what the full history says. Where tombstones were
// pruned the store may find more conflicts, but only where the path or key is absent and
// expected is below the floor.
func (m *model) checkConflicts(t *rapid.T, expected uint64, ops []Op, strict bool, lost *ConflictError) {
	var got []Conflict
	if lost != nil {
		got = lost.Conflicts
	}
	seen := map[string]bool{}
	for _, op := range ops {
		heavy := ofHeavy(op)
		place, name := "data "+joined(op.Path), op.Path.String()
		if heavy {
			place, name = "heavy "+op.Key, op.Key
		}
		if seen[place] {
			continue
		}
		seen[place] = true
		var want uint64
		for _, touch := range m.touches {
			if related(op, touch.op) && touch.version > expected {
				want = touch.version
			}
		}
		most := want
		if floor := m.floor(heavy); expected != AnyVersion && expected != m.now() && expected < floor && !m.stands(op) {
			most = max(want, floor)
		}
		if len(got) > 0 && got[0].Path == name && got[0].Heavy == heavy {
			if c := got[0].ChangedAt; c < want || c > most || c <= expected {
				t.Fatalf("%q changed at %d says the store, at %d to %d the history", name, c, want, most)
			}
			if heavy {
				name = "heavy:" + name
			}
			m.conflicts[name]++
			got = got[1:]
		} else if want > expected {
			t.Fatalf("%q changed at %d and passed a CAS that expects %d", name, want, expected)
		}
	}
	if len(got) > 0 {
		t.Fatalf("conflicts that the history does not know: %v", got)
	}
	if wantStrict := strict && expected != m.now() && expected != AnyVersion; lost != nil && len(lost.Conflicts) == 0 && !wantStrict {
		t.Fatalf("lost without a conflict: %v", lost)
	} else if wantStrict && lost == nil {
		t.Fatalf("a strict CAS that expects %d passed at %d", expected, m.now())
	}
}

// floor is what the store may have forgotten.
func (m *model) floor(heavy bool) uint64 {
	if heavy {
		return m.store.current.Load().heavy.floor
	}
	return m.store.current.Load().data.floor
}

// stands says whether something stands at the place of the operation, or below it.
func (m *model) stands(op Op) bool {
	now := m.versions[m.now()]
	if ofHeavy(op) {
		_, ok := now.heavy[op.Key]
		return ok || op.Key == "" // what touched any is never forgotten
	}
	for _, leaf := range now.data {
		if isPrefix(op.Path, leaf.path) {
			return true
		}
	}
	return false
}

func ofHeavy(op Op) bool {
	return slices.Contains([]OpKind{SetHeavy, DeleteHeavy, CheckHeavy}, op.Kind)
}

func related(a, b Op) bool {
	aHeavy, bHeavy := ofHeavy(a), ofHeavy(b)
	if aHeavy || bHeavy {
		return aHeavy && bHeavy && (a.Key == b.Key || a.Key == "" || b.Key == "") // "": a check of all
	}
	return isPrefix(a.Path, b.Path) || isPrefix(b.Path, a.Path)
}
