package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The store against a model that a reader can check by eye: a full copy of the
// state per version, conflicts from the full history, and for each life of an
// array the question whether some pin lies in it.

type modelLeaf struct {
	path      Path
	codec     uint8
	bytes     string
	changedAt uint64
}

type modelVersion struct {
	data  map[string]modelLeaf // by the joined path
	heavy map[string]Heavy
}

type modelTouch struct {
	op      Op
	version uint64
}

type modelLife struct {
	array     *testArray
	key       string
	born, end uint64 // end is exclusive
}

type modelSnapshot struct {
	real *Snapshot
	refs int
	at   uint64
	want modelVersion
}

type model struct {
	t         *rapid.T
	store     *Store
	versions  []modelVersion
	touches   []modelTouch
	lives     []modelLife
	arrays    []*testArray
	snapshots []*modelSnapshot
	conflicts map[string]uint64
	closed    bool
}

func TestStoreAgainstModel(t *testing.T) {
	for _, limit := range []int{tombstoneLimit, 3, 0} {
		t.Run(fmt.Sprint("tombstones ", limit), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := &model{t: t, store: newStore(limit), conflicts: map[string]uint64{}}
				m.versions = []modelVersion{{map[string]modelLeaf{}, map[string]Heavy{}}}
				for i := range 4 {
					a := &testArray{name: fmt.Sprint(i), fail: t.Errorf}
					a.refs.Store(1)
					m.arrays = append(m.arrays, a)
				}
				t.Repeat(map[string]func(*rapid.T){
					"":         m.check,
					"cas":      m.cas,
					"cas too":  m.cas, // more often than the others
					"snapshot": m.snapshot,
					"retain":   m.retain,
					"release":  m.release,
					"close":    m.close,
				})
				m.releaseAllAndClose()
			})
		})
	}
}

func joined(p Path) string { return strings.Join(p, "\xff") }

func (m *model) now() uint64 { return uint64(len(m.versions) - 1) }

func modelPath() *rapid.Generator[Path] {
	return rapid.Custom(func(t *rapid.T) Path {
		return Path(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a.b", "a\x00"}), 0, 3).Draw(t, "path"))
	})
}

func modelKey() *rapid.Generator[string] { return rapid.SampledFrom([]string{"k", "k.1", "l", "m"}) }

func (m *model) drawOp(t *rapid.T) Op {
	op := Op{Kind: rapid.SampledFrom([]OpKind{Set, Set, Delete, SetHeavy, SetHeavy, DeleteHeavy, Check, CheckHeavy}).Draw(t, "kind")}
	switch op.Kind {
	case Set:
		op.Codec = rapid.Uint8Range(1, 3).Draw(t, "codec")
		op.Bytes = []byte(rapid.StringMatching(`[xyz]{0,2}`).Draw(t, "bytes"))
		op.Path = modelPath().Draw(t, "path")
	case Delete, Check:
		op.Path = modelPath().Draw(t, "path")
	case SetHeavy:
		op.Array = rapid.SampledFrom(m.arrays).Draw(t, "array")
		op.Key = modelKey().Draw(t, "key")
	case DeleteHeavy:
		op.Key = modelKey().Draw(t, "key")
	case CheckHeavy:
		op.Key = rapid.OneOf(modelKey(), rapid.Just("")).Draw(t, "key")
	}
	return op
}

func (m *model) cas(t *rapid.T) {
	ops := rapid.SliceOfN(rapid.Custom(m.drawOp), 0, 4).Draw(t, "ops")
	strict := rapid.IntRange(0, 4).Draw(t, "strict") == 0
	now := m.now()
	back := rapid.Uint64Range(0, min(now, 6)).Draw(t, "versions back")
	expected := rapid.SampledFrom([]uint64{now - back, now - back, now - back, now, AnyVersion, now + 1}).Draw(t, "expected")

	version, err := m.store.CAS(expected, ops, strict)
	if m.closed {
		if err != ErrClosed || version != now {
			t.Fatalf("CAS of a closed store: %d, %v", version, err)
		}
		return
	}
	if expected == now+1 {
		var future *FutureVersionError
		if !errors.As(err, &future) || *future != (FutureVersionError{expected, now}) || version != now {
			t.Fatalf("CAS of a future version: %d, %v", version, err)
		}
		return
	}
	var lost *ConflictError
	if errors.As(err, &lost) {
		if lost.Expected != expected || lost.Current != now || lost.Strict != strict || version != now {
			t.Fatalf("%+v, version %d; now is %d", lost, version, now)
		}
	} else if err != nil {
		t.Fatalf("CAS: %v", err)
	}
	m.checkConflicts(t, expected, ops, strict, lost)
	changing := slices.ContainsFunc(ops, func(op Op) bool { return op.Kind != Check && op.Kind != CheckHeavy })
	if lost != nil || !changing {
		if version != now {
			t.Fatalf("version %d, want %d still", version, now)
		}
		return
	}
	if version != now+1 {
		t.Fatalf("version %d after %d", version, now)
	}
	m.apply(ops)
}

func (m *model) apply(ops []Op) {
	version := m.now() + 1
	before := m.versions[m.now()]
	next := modelVersion{maps.Clone(before.data), maps.Clone(before.heavy)}
	for _, op := range ops {
		if op.Kind != Check && op.Kind != CheckHeavy {
			m.touches = append(m.touches, modelTouch{op, version})
		}
		switch op.Kind {
		case SetHeavy:
			next.heavy[op.Key] = Heavy{op.Array, version}
		case DeleteHeavy:
			delete(next.heavy, op.Key)
		case Set, Delete:
			for name, leaf := range next.data {
				if isPrefix(op.Path, leaf.path) || (op.Kind == Set && isPrefix(leaf.path, op.Path)) {
					delete(next.data, name)
				}
			}
			if op.Kind == Set {
				next.data[joined(op.Path)] = modelLeaf{op.Path, op.Codec, string(op.Bytes), version}
			}
		}
	}
	for i, life := range m.lives {
		if life.end == AnyVersion && next.heavy[life.key] != (Heavy{life.array, life.born}) {
			m.lives[i].end = version
		}
	}
	for key, slot := range next.heavy {
		if slot.ChangedAt == version {
			m.lives = append(m.lives, modelLife{slot.Array.(*testArray), key, version, AnyVersion})
		}
	}
	m.versions = append(m.versions, next)
}

func (m *model) snapshot(t *rapid.T) {
	if len(m.snapshots) >= 6 {
		t.Skip("enough snapshots")
	}
	sn := &modelSnapshot{m.store.Snapshot(), 1, m.now(), m.versions[m.now()]}
	if m.closed {
		sn.want = modelVersion{}
	}
	m.snapshots = append(m.snapshots, sn)
}

func (m *model) drawSnapshot(t *rapid.T) *modelSnapshot {
	if len(m.snapshots) == 0 {
		t.Skip("no snapshot")
	}
	return rapid.SampledFrom(m.snapshots).Draw(t, "snapshot")
}

func (m *model) retain(t *rapid.T) {
	sn := m.drawSnapshot(t)
	if got := sn.real.Retain(); got != (sn.refs > 0) {
		t.Fatalf("Retain with %d references: %v", sn.refs, got)
	} else if got {
		sn.refs++
	}
}

func (m *model) release(t *rapid.T) {
	sn := m.drawSnapshot(t)
	sn.real.Release()
	if sn.refs > 0 {
		sn.refs--
	} else { // idempotence was tried
		m.snapshots = slices.DeleteFunc(m.snapshots, func(s *modelSnapshot) bool { return s == sn })
	}
	if sn.refs == 0 {
		sn.want = modelVersion{}
	}
}

func (m *model) close(t *rapid.T) {
	if m.closed || rapid.IntRange(0, 9).Draw(t, "close") > 0 {
		t.Skip("rarely")
	}
	m.closeNow()
}

func (m *model) closeNow() {
	m.store.Close()
	m.closed = true
	for i := range m.lives {
		m.lives[i].end = min(m.lives[i].end, m.now()+1)
	}
}

func (m *model) releaseAllAndClose() {
	m.closeNow()
	for _, sn := range m.snapshots {
		for range sn.refs {
			sn.real.Release()
		}
	}
	for _, a := range m.arrays {
		if a.held() != 0 {
			m.t.Fatalf("array %s is held %d times in the end", a.name, a.held())
		}
	}
	if got := m.store.Stats(); got != (Stats{Version: m.now(), OldestPin: m.now()}) {
		m.t.Fatalf("stats in the end: %+v", got)
	}
}
