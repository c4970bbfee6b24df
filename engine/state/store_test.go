package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestWhatOperationsLeaveBehind(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Op
		want []string
	}{
		{"nothing", nil, []string{}},
		{"siblings, in path order", []Op{set("b", "2"), set("a.z", "1"), set("a.b.c", "3")}, []string{"a.b.c=3", "a.z=1", "b=2"}},
		{"a child comes before a longer sibling", []Op{set("ab", "2"), set("a.z", "1"), set("a!", "3")}, []string{"a.z=1", "a!=3", "ab=2"}},
		{"a dot in a component is no level", []Op{set("a.b", "1"), set(`a\.b`, "2")}, []string{"a.b=1", `a\.b=2`}},
		{"set wipes what is below", []Op{set("a.b", "1"), set("a.c.d", "2"), set("ab", "3"), set("a", "4")}, []string{"a=4", "ab=3"}},
		{"set below wipes a leaf above", []Op{set("a", "5"), set("b", "6"), set("a.b.c", "7")}, []string{"a.b.c=7", "b=6"}},
		{"also after a delete deep below it", []Op{set("a", "5"), del("a.b.c.d"), set("a.b.c.d", "7")}, []string{"a.b.c.d=7"}},
		{"delete removes the subtree", []Op{set("a.b", "1"), set("a.c.d", "2"), set("ab", "3"), del("a")}, []string{"ab=3"}},
		{"delete leaves the leaf above", []Op{set("a", "1"), del("a.b")}, []string{"a=1"}},
		{"delete of the last one leaves nothing", []Op{set("a.b.c", "1"), del("a.b.c")}, []string{}},
		{"delete of the absent", []Op{del("x.y")}, []string{}},
		{"the root is a leaf", []Op{set("a.b", "1"), set("", "2")}, []string{"=2"}},
		{"below the root", []Op{set("", "2"), set("a", "1")}, []string{"a=1"}},
		{"delete the root", []Op{set("a.b", "1"), set("c", "2"), del("")}, []string{}},
		{"order counts", []Op{del("a"), set("a", "1"), del("b"), set("b", "1"), del("b")}, []string{"a=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			together, apart := New(), New()
			if len(c.ops) > 0 {
				mustCommit(t, together, c.ops...)
			}
			for _, op := range c.ops {
				mustCommit(t, apart, op)
			}
			for how, s := range map[string]*Store{"in one CAS": together, "one by one": apart} {
				sn := s.Snapshot()
				if got := dump(sn, ""); !slices.Equal(got, c.want) {
					t.Errorf("%s: %q, want %q", how, got, c.want)
				}
				sn.Release()
			}
		})
	}
}

func TestReadingASnapshot(t *testing.T) {
	s := New()
	mustCommit(t, s, set("a.b", "1"), set("a.c.d", "2"), set("ab", "3"))
	mustCommit(t, s, set("a.b", "4"))
	sn := s.Snapshot()
	defer sn.Release()
	mustCommit(t, s, set("a", "5"), set("z", "6"))

	if codec, b, changedAt, ok := sn.Value(Path{"a", "b"}); !ok || codec != 2 || string(b) != "4" || changedAt != 2 {
		t.Errorf("a.b is %d %q changed at %d, %v", codec, b, changedAt, ok)
	}
	if _, _, changedAt, ok := sn.Value(Path{"ab"}); !ok || changedAt != 1 {
		t.Errorf("ab changed at %d, %v", changedAt, ok)
	}
	for _, absent := range []string{"", "a", "a.c", "x", "a.b.c", "z"} {
		if _, b, _, ok := sn.Value(mustParse(absent)); ok {
			t.Errorf("%q has the value %q, want none", absent, b)
		}
	}
	for path, want := range map[string][]string{
		"":      {"a.b=4", "a.c.d=2", "ab=3"},
		"a":     {"a.b=4", "a.c.d=2"},
		"a.c":   {"a.c.d=2"},
		"ab":    {"ab=3"},
		"x":     {},
		"a.b.x": {},
	} {
		if got := dump(sn, path); !slices.Equal(got, want) {
			t.Errorf("walk from %q: %q, want %q", path, got, want)
		}
	}
	seen := 0
	sn.Walk(nil, func(Path, uint8, []byte) bool { seen++; return seen < 2 })
	if seen != 2 {
		t.Errorf("a walk that was stopped at the second leaf saw %d", seen)
	}
}

func TestHeavyKeys(t *testing.T) {
	s := New()
	x, y := newUnlockedArray(t, s, "x"), newUnlockedArray(t, s, "y")
	mustCommit(t, s, setHeavy("k", x), setHeavy("k.1", y), setHeavy("-", x))
	mustCommit(t, s, setHeavy("k", y), delHeavy("absent"))
	sn := s.Snapshot()
	mustCommit(t, s, delHeavy("k.1"))
	if got, want := sn.HeavyKeys(), []string{"-", "k", "k.1"}; !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
	if slot, ok := sn.Heavy("k"); !ok || slot.Array != y || slot.ChangedAt != 2 {
		t.Errorf("k is %v, %v", slot, ok)
	}
	if slot, ok := sn.Heavy("absent"); ok || slot.Array != nil {
		t.Errorf("a deleted key is %v", slot)
	}
	later := s.Snapshot()
	if got, want := later.HeavyKeys(), []string{"-", "k"}; !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
	sn.Release()
	later.Release()
}

// A place is touched in version 1 or 2; a CAS that expects version 1 touches another.
func TestWhatConflicts(t *testing.T) {
	array := newArray(t, "x")
	for _, c := range []struct {
		name      string
		before    []Op // version 1
		between   []Op // version 2
		touches   []Op
		conflicts []Conflict
	}{
		{"the same path", nil, []Op{set("a.b", "1")}, []Op{set("a.b", "2")}, []Conflict{{"a.b", false, 2}}},
		{"an ancestor", nil, []Op{set("a", "1")}, []Op{set("a.b.c", "2")}, []Conflict{{"a.b.c", false, 2}}},
		{"a descendant", nil, []Op{set("a.b.c", "1")}, []Op{set("a", "2")}, []Conflict{{"a", false, 2}}},
		{"the root below", nil, []Op{set("a", "1")}, []Op{set("", "2")}, []Conflict{{"", false, 2}}},
		{"the root above", nil, []Op{del("")}, []Op{set("x.y", "2")}, []Conflict{{"x.y", false, 2}}},
		{"a sibling", nil, []Op{set("a.b", "1")}, []Op{set("a.c", "2")}, nil},
		{"a sibling, in what was an empty dict", []Op{set("a", "{}")}, []Op{set("a.b", "1")}, []Op{set("a.c", "2")}, nil},
		{"a longer name", nil, []Op{set("a", "1")}, []Op{set("ab", "2")}, nil},
		{"a literal dot", nil, []Op{set("a.b", "1")}, []Op{set(`a\.b`, "2")}, nil},
		{"touched before", []Op{set("a", "1")}, []Op{set("b", "1")}, []Op{set("a", "2"), del("a.x")}, nil},
		{"deleted", []Op{set("a", "1")}, []Op{del("a")}, []Op{set("a", "2")}, []Conflict{{"a", false, 2}}},
		{"deleted with what is above", []Op{set("a.b", "1")}, []Op{del("a")}, []Op{set("a.b", "2")}, []Conflict{{"a.b", false, 2}}},
		{"wiped by a set above", []Op{set("a.b", "1")}, []Op{set("a", "1")}, []Op{del("a.b")}, []Conflict{{"a.b", false, 2}}},
		{"delete of the absent is a touch", nil, []Op{del("a")}, []Op{set("a", "2")}, []Conflict{{"a", false, 2}}},
		{"each place once, in order", nil, []Op{set("a", "1"), set("b", "1")}, []Op{del("b"), set("a", "2"), set("c", "1"), set("b", "2")},
			[]Conflict{{"b", false, 2}, {"a", false, 2}}},
		{"a heavy key", nil, []Op{setHeavy("k", array)}, []Op{setHeavy("k", array)}, []Conflict{{"k", true, 2}}},
		{"a deleted heavy key", nil, []Op{delHeavy("k")}, []Op{setHeavy("k", array)}, []Conflict{{"k", true, 2}}},
		{"heavy keys have no levels", nil, []Op{setHeavy("k", array)}, []Op{setHeavy("k.1", array)}, nil},
		{"a heavy key is no path", nil, []Op{setHeavy("k", array)}, []Op{set("k", "1")}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New()
			before := c.before
			if before == nil {
				before = []Op{set("unrelated", "1")}
			}
			mustCommit(t, s, before...)
			mustCommit(t, s, c.between...)
			was := s.Snapshot()
			defer was.Release()
			version, err := s.CAS(1, c.touches, false)
			if c.conflicts == nil {
				if err != nil || version != 3 {
					t.Fatalf("CAS: version %d, %v; want none to conflict", version, err)
				}
				return
			}
			var lost *ConflictError
			if !errors.As(err, &lost) {
				t.Fatalf("CAS: version %d, %v; want a conflict", version, err)
			}
			if lost.Expected != 1 || lost.Current != 2 || lost.Strict || version != 2 {
				t.Errorf("%+v, version %d", lost, version)
			}
			if !slices.Equal(lost.Conflicts, c.conflicts) {
				t.Errorf("conflicts %v, want %v", lost.Conflicts, c.conflicts)
			}
			now := s.Snapshot()
			defer now.Release()
			if now.Version() != 2 || !slices.Equal(dump(now, ""), dump(was, "")) || !slices.Equal(now.HeavyKeys(), was.HeavyKeys()) {
				t.Errorf("the CAS that lost changed the state to %q", dump(now, ""))
			}
		})
	}
}

func TestComparing(t *testing.T) {
	s := New()
	mustCommit(t, s, set("a", "1"))
	mustCommit(t, s, set("b", "1"))
	for _, c := range []struct {
		name     string
		expected uint64
		ops      []Op
		strict   bool
		want     string // of the error
	}{
		{"nothing to do", 1, nil, false, ""},
		{"nothing to do, strict and current", 2, nil, true, ""},
		{"nothing to do, strict and stale", 1, nil, true, "Strict CAS Mismatch: Expected 1, Found 2"},
		{"any version, strict", AnyVersion, nil, true, ""},
		{"strict, nothing touched changed", 1, []Op{set("a", "2")}, true, "Strict CAS Mismatch: Expected 1, Found 2"},
		{"strict, and changed", 0, []Op{set("a", "2"), set("b", "2"), set("c", "1")}, true,
			"Strict CAS Mismatch: Expected 0, Found 2 (Keys Changed): a (changed at 1), b (changed at 2)"},
		{"changed", 1, []Op{set("b.c", "2")}, false,
			"CAS Version Mismatch (Conflict Detected): Expected 1, Found 2 (Keys Changed): b.c (changed at 2)"},
		{"checked and changed", 1, []Op{{Kind: Check, Path: Path{"b"}}, set("c", "1")}, false,
			"CAS Version Mismatch (Conflict Detected): Expected 1, Found 2 (Keys Changed): b (changed at 2)"},
		{"all data checked", 1, []Op{{Kind: Check}}, false,
			"CAS Version Mismatch (Conflict Detected): Expected 1, Found 2 (Keys Changed): (all data) (changed at 2)"},
		{"checks alone", 1, []Op{{Kind: Check, Path: Path{"a"}}, {Kind: CheckHeavy, Key: "k"}}, false, ""},
		{"future", 3, nil, false,
			"expected version 3 does not exist yet: the state is at version 2; pass the version of a snapshot of this state"},
	} {
		t.Run(c.name, func(t *testing.T) {
			version, err := s.CAS(c.expected, c.ops, c.strict)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want || version != 2 || s.Version() != 2 {
				t.Errorf("version %d, now %d, error %q; want %q", version, s.Version(), got, c.want)
			}
		})
	}
	if version, err := s.CAS(2, []Op{set("a", "3")}, true); version != 3 || err != nil {
		t.Errorf("strict and current: %d, %v", version, err)
	}
	if version, err := s.CAS(AnyVersion, []Op{set("a", "4")}, true); version != 4 || err != nil {
		t.Errorf("strict and any: %d, %v", version, err)
	}
}

func TestLongConflictListsStayReadable(t *testing.T) {
	s := New()
	var ops []Op
	for i := range 500 {
		ops = append(ops, set(fmt.Sprintf("key%d", i), "1"))
	}
	mustCommit(t, s, ops...)
	_, err := s.CAS(0, ops, false)
	var lost *ConflictError
	if !errors.As(err, &lost) || len(lost.Conflicts) != 500 {
		t.Fatalf("%v", err)
	}
	if text := err.Error(); !strings.HasSuffix(text, "key9 (changed at 1), and 490 more") {
		t.Errorf("the text is %q", text)
	}
}

func TestOperationsThatMakeNoSense(t *testing.T) {
	s := New()
	x := newUnlockedArray(t, s, "x")
	for _, c := range []struct {
		op   Op
		want string
	}{
		{Op{}, "unknown kind"},
		{Op{Kind: 9}, "unknown kind"},
		{Op{Kind: SetHeavy, Key: "k"}, "no array"},
		{setHeavy("", x), "the key is empty"},
		{delHeavy(""), "the key is empty"},
		{Op{Kind: DeleteHeavy, Key: "\xff"}, "UTF-8"},
		{Op{Kind: CheckHeavy, Key: "\xff"}, "UTF-8"},
		{Op{Kind: Set, Path: Path{"a", ""}}, "component 1 of the path is empty"},
		{Op{Kind: Delete, Path: Path{"\xff"}}, "UTF-8"},
		{Op{Kind: Set, Path: slices.Repeat(Path{"a"}, MaxDepth+1)}, "more than 1000"},
	} {
		_, err := s.CAS(0, []Op{setHeavy("good", x), c.op}, false)
		var problem *OpError
		if !errors.As(err, &problem) || problem.Index != 1 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want an *OpError about %q", c.op, err, c.want)
		}
	}
	if s.Version() != 0 {
		t.Errorf("version %d", s.Version())
	}
	wantHeld(t, "after refused operations", x, 0)
	mustCommit(t, s, Op{Kind: Set, Path: slices.Repeat(Path{"a"}, MaxDepth)})
}

func TestConflictCounts(t *testing.T) {
	s := New()
	x := newArray(t, "x")
	mustCommit(t, s, set("a.b", "1"), setHeavy("k", x))
	mustCommit(t, s, set("c", "1"))
	for range 3 {
		_, _ = s.CAS(0, []Op{set("a.b", "2"), set("a.b", "3"), set("new", "1")}, false)
	}
	_, _ = s.CAS(0, []Op{setHeavy("k", x), set("c", "1")}, true)
	_, _ = s.CAS(99, []Op{set("c", "1")}, false)
	want := map[string]uint64{"a.b": 3, "heavy:k": 1, "c": 1}
	if got := s.Conflicts(); !maps.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	s.Conflicts()["a.b"] = 77
	if got := s.Conflicts()["a.b"]; got != 3 {
		t.Errorf("a caller's change of the map reached the store: %d", got)
	}
}

func TestConflictCountsKeepTheMostConflicted(t *testing.T) {
	var counts conflictCounts
	for i := range 50_000 {
		counts.add([]Conflict{{Path: fmt.Sprint("rare", i)}})
		if i%10 == 0 {
			counts.add([]Conflict{{Path: fmt.Sprint("hot", i/10%500)}})
		}
		if len(counts.counts) > 2*conflictsKept {
			t.Fatalf("%d places are kept", len(counts.counts))
		}
	}
	got := counts.most()
	if len(got) != conflictsKept {
		t.Errorf("%d places are reported", len(got))
	}
	for i := range 500 {
		if n := got[fmt.Sprint("hot", i)]; n != 10 {
			t.Errorf("hot%d was counted %d times, want 10", i, n)
		}
	}
}
