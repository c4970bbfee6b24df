package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Writers increment counters by CAS, siblings in the same dict without
// conflicts and one shared counter with them; no increment may be lost.
func TestConcurrentIncrementsAreExact(t *testing.T) {
	const writers, rounds = 4, 300
	s := New()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			own := Path{"own", fmt.Sprint(w)}
			for range rounds {
				increment(t, s, own, w == 0)
				increment(t, s, Path{"shared"}, false)
			}
		})
	}
	group.Wait()
	sn := s.Snapshot()
	defer sn.Release()
	if got := counter(sn, Path{"shared"}); got != writers*rounds {
		t.Errorf("shared is %d, want %d", got, writers*rounds)
	}
	for w := range writers {
		own := Path{"own", fmt.Sprint(w)}
		if got := counter(sn, own); got != rounds {
			t.Errorf("%s is %d, want %d", own, got, rounds)
		}
		if n := s.Conflicts()[own.String()]; n != 0 {
			t.Errorf("%s has one writer and lost %d times", own, n)
		}
	}
	if sn.Version() != 2*writers*rounds {
		t.Errorf("version %d, want one per increment", sn.Version())
	}
}

func increment(t *testing.T, s *Store, p Path, strict bool) {
	for {
		sn := s.Snapshot()
		next := binary.AppendUvarint(nil, counter(sn, p)+1)
		_, err := s.CAS(sn.Version(), []Op{{Kind: Set, Path: p, Codec: 1, Bytes: next}}, strict)
		sn.Release()
		if err == nil {
			return
		}
		if conflict := (*ConflictError)(nil); !errors.As(err, &conflict) {
			t.Error(err)
			return
		}
	}
}

func counter(sn *Snapshot, p Path) uint64 {
	_, b, _, _ := sn.Value(p)
	n, _ := binary.Uvarint(b)
	return n
}

// Writers replace a pair of arrays together with a pair of values. Readers must
// see pairs that belong together, made of arrays that are not freed, for
// as long as they hold the snapshot. In the end everything is freed once.
func TestConcurrentSnapshotsSeeWholeVersions(t *testing.T) {
	const writers, readers, rounds = 3, 3, 300
	s := newStore(10)
	var mu sync.Mutex
	var arrays []*testArray
	fresh := func(name string) *testArray {
		a := newArray(t, name)
		a.onCall = func() { // an owner may call the store
			if s.Stats().Version > s.Version() {
				t.Error("the version went back")
			}
			s.Snapshot().Release()
		}
		mu.Lock()
		defer mu.Unlock()
		arrays = append(arrays, a)
		return a
	}
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range rounds {
				name := fmt.Sprintf("%d.%d", w, i)
				left, right := fresh(name), fresh(name)
				ops := []Op{
					setHeavy("left", left), setHeavy("right", right), delHeavy(name), setHeavy(name, left),
					{Kind: Set, Path: Path{"pair", "left"}, Bytes: []byte(name)},
					{Kind: Set, Path: Path{"pair", "right"}, Bytes: []byte(name)},
					{Kind: Delete, Path: Path{"pair", name}},
				}
				expected := s.Version()
				if i%3 == 0 {
					expected = AnyVersion
				}
				_, err := s.CAS(expected, ops, false)
				if conflict := (*ConflictError)(nil); err != nil && !errors.As(err, &conflict) {
					t.Error(err)
				}
				if _, err := s.CAS(AnyVersion, []Op{delHeavy(name)}, false); err != nil {
					t.Error(err)
				}
				left.Release()
				right.Release()
			}
		})
	}
	for r := range readers {
		group.Go(func() {
			var held []*Snapshot
			for i := range rounds {
				sn := s.Snapshot()
				held = append(held, sn)
				for _, sn := range held {
					checkPair(t, sn)
				}
				if len(held) < 4 {
					continue
				}
				// One of them ends, in an order of its own per reader, through a
				// second reference in another goroutine.
				k := (i*i + r) % 4
				ends := held[k]
				held = append(held[:k], held[k+1:]...)
				if !ends.Retain() {
					t.Error("Retain of a live snapshot failed")
				}
				ends.Release()
				group.Go(func() {
					checkPair(t, ends)
					ends.Release()
				})
			}
			for _, sn := range held {
				sn.Release()
			}
		})
	}
	group.Wait()
	s.Close()
	for _, a := range arrays {
		if refs := a.refs.Load(); refs != 0 { // its creator's is gone, too
			t.Errorf("array %s has %d references in the end", a.name, refs)
		}
	}
	if got, want := s.Stats(), (Stats{Version: s.Version(), OldestPin: s.Version()}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

// Snapshots are taken while versions pass by and are all kept. Then exactly those
// arrays are held that one of them shows: the step to the next version and its
// retirement are one step for whoever pins.
func TestConcurrentPinsHoldExactlyTheirVersions(t *testing.T) {
	const pinners, versions = 3, 3000
	s := New()
	arrays := make([]*testArray, versions+1) // arrays[v] lives in [v, v+1)
	for v := range arrays {
		arrays[v] = newArray(t, fmt.Sprint(v))
	}
	snapshots := make([][]*Snapshot, pinners)
	var written atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		defer written.Store(true)
		for v := 1; v <= versions; v++ {
			if _, err := s.CAS(AnyVersion, []Op{setHeavy("k", arrays[v])}, false); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range snapshots {
		group.Go(func() {
			for next := uint64(0); !written.Load(); {
				if s.Version() < next {
					runtime.Gosched() // leave versions out, so that some are pinned by nobody
					continue
				}
				sn := s.Snapshot()
				snapshots[i] = append(snapshots[i], sn)
				next = sn.Version() + uint64(i) + 2
			}
		})
	}
	group.Wait()
	shown := map[uint64]bool{versions: true}
	for _, sn := range slices.Concat(snapshots...) {
		shown[sn.Version()] = true
	}
	for v := 1; v <= versions; v++ {
		want := int64(0)
		if shown[uint64(v)] {
			want = 1
		}
		wantHeld(t, "all pins kept", arrays[v], want)
	}
	for _, some := range snapshots {
		group.Go(func() {
			for _, sn := range some {
				sn.Release()
			}
		})
	}
	group.Wait()
	for v := 1; v < versions; v++ {
		wantHeld(t, "all pins released", arrays[v], 0)
	}
}

// A snapshot that pinned the next version before the retirement of the current
// one would seem to hold what ended. So while somebody pins, no version may pass.
func TestVersionDoesNotPassWhileSomebodyPins(t *testing.T) {
	s := New()
	s.pinning.Lock()
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := s.CAS(0, []Op{set("a", "1")}, false); err != nil {
			t.Error(err)
		}
	})
	// What must not happen cannot be waited for; a wrong order shows within microseconds.
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); runtime.Gosched() {
		if s.Version() != 0 {
			t.Error("the version passed while a snapshot was being taken")
			break
		}
	}
	s.pinning.Unlock()
	group.Wait()
	if s.Version() != 1 {
		t.Errorf("version %d in the end", s.Version())
	}
}

func checkPair(t *testing.T, sn *Snapshot) {
	_, left, leftAt, ok := sn.Value(Path{"pair", "left"})
	_, right, rightAt, _ := sn.Value(Path{"pair", "right"})
	if !ok {
		return // nothing was written yet
	}
	if string(left) != string(right) || leftAt != rightAt {
		t.Errorf("version %d shows %q of %d and %q of %d", sn.Version(), left, leftAt, right, rightAt)
	}
	for _, key := range []string{"left", "right"} {
		slot, ok := sn.Heavy(key)
		if !ok {
			t.Errorf("version %d has no array %q", sn.Version(), key)
			continue
		}
		a := slot.Array.(*testArray)
		if a.name != string(left) || slot.ChangedAt != leftAt {
			t.Errorf("version %d shows the array %s of %d with the value %q", sn.Version(), a.name, slot.ChangedAt, left)
		}
		if refs := a.refs.Load(); refs < 1 {
			t.Errorf("version %d is pinned and its array %s has %d references", sn.Version(), a.name, refs)
		}
	}
}
