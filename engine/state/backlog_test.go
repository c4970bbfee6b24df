package state

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTasksAloneHoldAnOldVersion(t *testing.T) {
	s := New()
	one := newArray(t, "1")
	mustCommit(t, s, setHeavy("k", one))
	task := s.TaskSnapshot()
	wantHeldByTasks(t, s, "the current version is held by itself")
	mustCommit(t, s, set("unrelated", "1"))
	wantHeldByTasks(t, s, "an old version without arrays of its own holds nothing")
	mustCommit(t, s, setHeavy("k", newArray(t, "2")))
	wantHeldByTasks(t, s, "nobody but the task holds the array", one)
	task.Release()
	wantHeldByTasks(t, s, "the task has ended")
}

func wantHeldByTasks(t *testing.T, s *Store, when string, want ...Held) {
	t.Helper()
	if got := s.HeldByTasks(); !slices.Equal(got, want) {
		t.Errorf("%s: %v", when, got)
	}
}

// A task that reads what a snapshot shows pins it for itself: the snapshot may go first.
func TestATaskOutlivesTheSnapshotThatItReads(t *testing.T) {
	s := New()
	x := newUnlockedArray(t, s, "x")
	mustCommit(t, s, setHeavy("k", x))
	sn := s.Snapshot()
	mustCommit(t, s, delHeavy("k"))
	task := sn.ForTask()
	wantHeldByTasks(t, s, "the snapshot holds the array, too")
	sn.Release()
	wantHeldByTasks(t, s, "nobody but the task holds the array", x)
	if _, ok := task.Heavy("k"); !ok || task.Version() != 1 {
		t.Errorf("the task reads version %d: %v", task.Version(), ok)
	}
	wantHeld(t, "pinned by the task", x, 1)
	task.Release()
	wantHeld(t, "pinned by nobody", x, 0)
	if sn.ForTask() != nil {
		t.Error("a released snapshot was pinned again")
	}
	s.Close()
	late := s.Snapshot()
	if again := late.ForTask(); again == nil || len(again.HeavyKeys()) != 0 {
		t.Error("a snapshot of a closed store is empty")
	}
}

// Random pins of tasks and of others, against the definition: an array that ended is pinned, and by tasks alone.
func TestHeldByTasksIsWhatItsDefinitionSays(t *testing.T) {
	type life struct {
		array     *testArray
		born, end uint64
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	held := 0
	for round := range 300 {
		s := New()
		var lives []life
		standing := map[string]life{}
		var pins []*Snapshot
		for range 40 {
			switch random.IntN(4) {
			case 0, 1:
				key := fmt.Sprint(random.IntN(3))
				array := newArray(t, key)
				mustCommit(t, s, setHeavy(key, array))
				if l, ok := standing[key]; ok {
					lives = append(lives, life{l.array, l.born, s.Version()})
				}
				standing[key] = life{array: array, born: s.Version()}
			case 2:
				switch kind := random.IntN(3); {
				case kind == 0:
					pins = append(pins, s.Snapshot())
				case kind == 1 || len(pins) == 0:
					pins = append(pins, s.TaskSnapshot())
				default:
					pins = append(pins, pins[random.IntN(len(pins))].ForTask())
				}
			case 3:
				if len(pins) > 0 {
					i := random.IntN(len(pins))
					pins[i].Release()
					pins = slices.Delete(pins, i, i+1)
				}
			}
			var want []Held
			for _, l := range lives {
				holders := slices.DeleteFunc(slices.Clone(pins), func(sn *Snapshot) bool {
					return sn.Version() < l.born || l.end <= sn.Version()
				})
				if len(holders) > 0 && !slices.ContainsFunc(holders, func(sn *Snapshot) bool { return !sn.ofTask }) {
					want = append(want, l.array)
				}
			}
			got := s.HeldByTasks()
			for _, array := range want {
				if !slices.Contains(got, array) {
					t.Fatalf("seed %d, round %d: %v is missing", seed, round, array)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("seed %d, round %d: %v, want %v", seed, round, got, want)
			}
			held += len(want)
		}
	}
	if held == 0 {
		t.Error("no round had anything to find")
	}
}
