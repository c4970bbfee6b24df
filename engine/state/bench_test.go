package state

import (
	"fmt"
	"testing"
)

// idleArray is a Held that costs nothing.
type idleArray struct{ _ int }

func (*idleArray) Retain()  {}
func (*idleArray) Release() {}

// sizes are the states that a benchmark compares: what it measures must not
// depend on how many keys there are.
var sizes = []int{10, 100_000}

func filled(b *testing.B, n int) *Store {
	s := New()
	ops := make([]Op, 0, 2*n)
	for i := range n {
		ops = append(ops,
			Op{Kind: Set, Path: Path{"group" + fmt.Sprint(i%100), "key" + fmt.Sprint(i)}, Bytes: []byte("value")},
			setHeavy("array"+fmt.Sprint(i), new(idleArray)))
	}
	if _, err := s.CAS(0, ops, false); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	return s
}

func perSize(b *testing.B, run func(b *testing.B, s *Store)) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n, "keys"), func(b *testing.B) { run(b, filled(b, n)) })
	}
}

func BenchmarkSnapshot(b *testing.B) {
	perSize(b, func(b *testing.B, s *Store) {
		for b.Loop() {
			s.Snapshot().Release()
		}
	})
}

func BenchmarkCASValue(b *testing.B) {
	perSize(b, func(b *testing.B, s *Store) {
		ops := []Op{{Kind: Set, Path: Path{"group3", "key3"}, Bytes: []byte("next")}}
		for b.Loop() {
			if _, err := s.CAS(s.Version(), ops, false); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Each commit retires the array of the one before.
func BenchmarkCASHeavy(b *testing.B) {
	perSize(b, func(b *testing.B, s *Store) {
		ops := []Op{setHeavy("array3", new(idleArray))}
		for b.Loop() {
			if _, err := s.CAS(s.Version(), ops, false); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkConflict(b *testing.B) {
	perSize(b, func(b *testing.B, s *Store) {
		ops := []Op{{Kind: Set, Path: Path{"group3", "key3"}, Bytes: []byte("next")}}
		for b.Loop() {
			if _, err := s.CAS(0, ops, false); err == nil {
				b.Fatal("no conflict")
			}
		}
	})
}

func BenchmarkHeavyLookup(b *testing.B) {
	perSize(b, func(b *testing.B, s *Store) {
		sn := s.Snapshot()
		defer sn.Release()
		for b.Loop() {
			if _, ok := sn.Heavy("array3"); !ok {
				b.Fatal("absent")
			}
		}
	})
}

func BenchmarkValueLookup(b *testing.B) {
	perSize(b, func(b *testing.B, s *Store) {
		sn := s.Snapshot()
		defer sn.Release()
		p := Path{"group3", "key3"}
		for b.Loop() {
			if _, _, _, ok := sn.Value(p); !ok {
				b.Fatal("absent")
			}
		}
	})
}

// One commit of 100,000 values, and one that replaces 100,000 pinned arrays.
func BenchmarkCASOf100000(b *testing.B) {
	values, arrays := make([]Op, 100_000), make([]Op, 100_000)
	for i := range values {
		values[i] = Op{Kind: Set, Path: Path{"group" + fmt.Sprint(i%100), "key" + fmt.Sprint(i)}, Bytes: []byte("value")}
		arrays[i] = setHeavy("array"+fmt.Sprint(i), new(idleArray))
	}
	for name, ops := range map[string][]Op{"values": values, "arrays": arrays} {
		b.Run(name, func(b *testing.B) {
			s := New()
			mustCommit(b, s, ops...)
			for b.Loop() {
				sn := s.Snapshot()
				mustCommit(b, s, ops...)
				sn.Release()
			}
		})
	}
}
