package state

import (
	"fmt"
	"testing"
)

func TestArrayIsReleasedWithItsLastHolder(t *testing.T) {
	s := New()
	x, y := newUnlockedArray(t, s, "x"), newUnlockedArray(t, s, "y")
	mustCommit(t, s, setHeavy("k", x))
	wantHeld(t, "published", x, 1)
	one := s.Snapshot()
	again := s.Snapshot()
	mustCommit(t, s, set("unrelated", "1"))
	two := s.Snapshot()
	mustCommit(t, s, setHeavy("k", y))
	three := s.Snapshot()
	wantHeld(t, "replaced, pinned by three snapshots", x, 1)
	if got := s.Stats(); got != (Stats{Version: 3, Arrays: 1, Snapshots: 4, Pins: 3, OldestPin: 1, Retired: 1}) {
		t.Errorf("stats %+v", got)
	}
	two.Release()
	one.Release()
	wantHeld(t, "one snapshot left", x, 1)
	again.Release()
	wantHeld(t, "no snapshot left that has it", x, 0)
	mustCommit(t, s, delHeavy("k"))
	wantHeld(t, "deleted, pinned", y, 1)
	three.Release()
	wantHeld(t, "deleted", y, 0)
	if got := s.Stats(); got != (Stats{Version: 4, OldestPin: 4}) {
		t.Errorf("stats %+v", got)
	}
}

func TestArrayThatNobodyPinsIsReleasedAtOnce(t *testing.T) {
	s := New()
	x, y, z := newUnlockedArray(t, s, "x"), newUnlockedArray(t, s, "y"), newUnlockedArray(t, s, "z")
	mustCommit(t, s, setHeavy("k", x), setHeavy("l", x))
	wantHeld(t, "under two keys", x, 2)
	mustCommit(t, s, setHeavy("k", y))
	wantHeld(t, "under one key", x, 1)
	mustCommit(t, s, setHeavy("k", y))
	wantHeld(t, "set again", y, 1)
	mustCommit(t, s, delHeavy("k"), delHeavy("l"))
	wantHeld(t, "deleted", x, 0)
	wantHeld(t, "deleted", y, 0)
	mustCommit(t, s, setHeavy("k", x), setHeavy("k", y), setHeavy("k", z), setHeavy("l", x), delHeavy("l"))
	wantHeld(t, "replaced in the same CAS", x, 0)
	wantHeld(t, "last in the same CAS", z, 1)
	if x.retains.Load() != 2 {
		t.Errorf("an array that never was in a version was retained")
	}
	if _, err := s.CAS(1, []Op{setHeavy("k", x)}, false); err == nil || x.retains.Load() != 2 {
		t.Errorf("a CAS that lost retained its array: %v", err)
	}
}

// A snapshot that is never released keeps what it shows, and nothing newer.
func TestForgottenSnapshotHoldsOneGeneration(t *testing.T) {
	s := New()
	var arrays []*testArray
	for i := range 50 {
		arrays = append(arrays, newUnlockedArray(t, s, fmt.Sprint(i)))
		mustCommit(t, s, setHeavy("k", arrays[i]))
		if i == 5 {
			s.Snapshot()
		}
		rolling := s.Snapshot()
		defer rolling.Release()
		if i%2 == 0 {
			rolling.Release()
		}
	}
	for i, a := range arrays {
		want := int64(0)
		if i == 5 || i == 49 || i%2 == 1 {
			want = 1
		}
		wantHeld(t, "with rolling snapshots", a, want)
	}
}

func TestPinsEndInAnyOrder(t *testing.T) {
	const generations = 200
	orders := map[string]func(n, i int) int{ // which of n pins ends i-th
		"oldest first": func(_, i int) int { return i },
		"newest first": func(n, i int) int { return n - 1 - i },
		"scattered":    func(n, i int) int { return i * 37 % n },
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			s := New()
			// Key i lives through 1 + i%7 generations at a time.
			type life struct {
				array     *testArray
				born, end uint64
			}
			var lives []life
			standing := map[string]int{}
			var pins []*Snapshot
			for g := range generations {
				var ops []Op
				for i := range 7 {
					if key := fmt.Sprint(i); g%(i+1) == 0 {
						if old, ok := standing[key]; ok {
							lives[old].end = s.Version() + 1
						}
						standing[key] = len(lives)
						lives = append(lives, life{newUnlockedArray(t, s, fmt.Sprint(key, "@", g)), s.Version() + 1, AnyVersion})
						ops = append(ops, setHeavy(key, lives[len(lives)-1].array))
					}
				}
				mustCommit(t, s, ops...)
				if g%3 != 0 {
					pins = append(pins, s.Snapshot())
				}
			}
			open := make([]bool, len(pins))
			for i := range open {
				open[i] = true
			}
			for turn := range pins {
				i := order(len(pins), turn)
				pins[i].Release()
				open[i] = false
				waiting := 0
				for _, l := range lives {
					want := int64(0)
					for j, sn := range pins {
						if open[j] && l.born <= sn.Version() && sn.Version() < l.end {
							want = 1
						}
					}
					if l.end == AnyVersion {
						want = 1
					} else if want == 1 {
						waiting++
					}
					if l.array.held() != want {
						t.Fatalf("after pin %d ended: %s of [%d, %d) is held %d times, want %d", i, l.array.name, l.born, l.end, l.array.held(), want)
					}
				}
				if got := s.Stats().Retired; got != waiting {
					t.Fatalf("%d arrays wait, want %d", got, waiting)
				}
			}
		})
	}
}

// The worst order for a list per pin: each array outlives every pin but one, so it would move
// once per pin: 2,000 × 2,000 moves. The heap moves whole.
func TestManyArraysUnderManyPinsMoveTogether(t *testing.T) {
	const n = 2000
	s := New()
	var ops, deletes []Op
	for i := range n {
		ops = append(ops, setHeavy(fmt.Sprint(i), newArray(t, fmt.Sprint(i))))
		deletes = append(deletes, delHeavy(fmt.Sprint(i)))
	}
	mustCommit(t, s, ops...)
	var pins []*Snapshot
	for range n {
		pins = append(pins, s.Snapshot())
		mustCommit(t, s, set("a", "1"))
	}
	mustCommit(t, s, deletes...)
	top := s.pins.newest.waiting
	for i := n - 1; i > 0; i-- {
		pins[i].Release()
		if moved := s.pins.newest.waiting; moved != top {
			t.Fatalf("the waiting arrays were taken apart when pin %d ended", i)
		}
	}
	if got := s.Stats().Retired; got != n {
		t.Errorf("%d arrays wait, want %d", got, n)
	}
	pins[0].Release()
	if got := s.Stats().Retired; got != 0 {
		t.Errorf("%d arrays wait, want none", got)
	}
}

func TestSnapshotReferences(t *testing.T) {
	s := New()
	x := newUnlockedArray(t, s, "x")
	mustCommit(t, s, setHeavy("k", x), set("a", "1"))
	sn := s.Snapshot()
	other := s.Snapshot()
	mustCommit(t, s, delHeavy("k"))
	if !sn.Retain() {
		t.Fatal("Retain of a live snapshot failed")
	}
	sn.Release()
	if _, ok := sn.Heavy("k"); !ok {
		t.Error("a snapshot with a reference left has lost its array")
	}
	for range 5 {
		sn.Release()
	}
	wantHeld(t, "released too often, another snapshot of the version is left", x, 1)
	if sn.Retain() {
		t.Error("Retain of a released snapshot succeeded")
	}
	if _, ok := sn.Heavy("k"); ok || len(sn.HeavyKeys()) != 0 {
		t.Error("a released snapshot shows arrays")
	}
	if _, _, _, ok := sn.Value(Path{"a"}); ok || len(dump(sn, "")) != 0 {
		t.Error("a released snapshot shows data")
	}
	if sn.Version() != 1 {
		t.Errorf("version of a released snapshot is %d", sn.Version())
	}
	other.Release()
	wantHeld(t, "all released", x, 0)
}

func TestClose(t *testing.T) {
	s := New()
	x, y, z := newUnlockedArray(t, s, "x"), newUnlockedArray(t, s, "y"), newUnlockedArray(t, s, "z")
	mustCommit(t, s, setHeavy("x", x), setHeavy("y", y), set("a", "1"))
	sn := s.Snapshot()
	mustCommit(t, s, setHeavy("y", z))
	s.Close()
	s.Close()
	wantHeld(t, "closed, pinned", x, 1)
	wantHeld(t, "closed, replaced, pinned", y, 1)
	wantHeld(t, "closed", z, 0)
	if version, err := s.CAS(2, []Op{setHeavy("x", z)}, false); err != ErrClosed || version != 2 {
		t.Errorf("CAS after Close: %d, %v", version, err)
	}
	if _, err := s.CAS(2, nil, false); err != ErrClosed {
		t.Errorf("comparing after Close: %v", err)
	}
	wantHeld(t, "refused", z, 0)
	after := s.Snapshot()
	if after.Version() != 2 || len(after.HeavyKeys()) != 0 || len(dump(after, "")) != 0 {
		t.Errorf("a snapshot after Close shows version %d, %q, %q", after.Version(), after.HeavyKeys(), dump(after, ""))
	}
	if slot, ok := sn.Heavy("y"); !ok || slot.Array != y || len(dump(sn, "")) != 1 {
		t.Error("a snapshot from before Close has lost something")
	}
	sn.Release()
	wantHeld(t, "closed and released", x, 0)
	wantHeld(t, "closed and released", y, 0)
	after.Release()
	after.Release()
	if got := s.Stats(); got != (Stats{Version: 2, OldestPin: 2}) {
		t.Errorf("stats %+v", got)
	}
}
