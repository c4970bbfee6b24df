package state

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// testArray is a Held that counts and objects to what an owner could not survive.
type testArray struct {
	name     string
	refs     atomic.Int64 // starts with the one of its creator
	retains  atomic.Int64
	releases atomic.Int64
	onCall   func() // runs in each Retain and Release
	fail     func(format string, args ...any)
}

func newArray(t testing.TB, name string) *testArray {
	a := &testArray{name: name, fail: t.Errorf}
	a.refs.Store(1)
	return a
}

// newUnlockedArray demands in each call that no lock of the store is held. For tests
// with one goroutine.
func newUnlockedArray(t testing.TB, s *Store, name string) *testArray {
	a := newArray(t, name)
	a.onCall = func() {
		for _, lock := range []interface {
			TryLock() bool
			Unlock()
		}{&s.commits, &s.pinning} {
			if !lock.TryLock() {
				t.Errorf("array %s is called with a lock of the store held", name)
				continue
			}
			lock.Unlock()
		}
	}
	return a
}

func (a *testArray) Retain() {
	if a.onCall != nil {
		a.onCall()
	}
	a.retains.Add(1)
	if a.refs.Add(1) < 2 {
		a.fail("array %s is retained after it was freed", a.name)
	}
}

func (a *testArray) Release() {
	if a.onCall != nil {
		a.onCall()
	}
	a.releases.Add(1)
	if a.refs.Add(-1) < 0 {
		a.fail("array %s is released more often than it was retained", a.name)
	}
}

// held is the number of references that the store has.
func (a *testArray) held() int64 { return a.retains.Load() - a.releases.Load() }

func (a *testArray) String() string { return fmt.Sprintf("array(%s)", a.name) }

func wantHeld(t *testing.T, when string, a *testArray, want int64) {
	t.Helper()
	if got := a.held(); got != want {
		t.Errorf("%s: the store holds array %s %d times, want %d", when, a.name, got, want)
	}
}

func set(path, value string) Op {
	return Op{Kind: Set, Path: mustParse(path), Codec: 2, Bytes: []byte(value)}
}

func del(path string) Op { return Op{Kind: Delete, Path: mustParse(path)} }

func setHeavy(key string, a Held) Op { return Op{Kind: SetHeavy, Key: key, Array: a} }

func delHeavy(key string) Op { return Op{Kind: DeleteHeavy, Key: key} }

func mustParse(path string) Path {
	p, err := ParsePath(path)
	if err != nil {
		panic(err)
	}
	return p
}

// mustCommit applies the operations whatever the version is.
func mustCommit(t testing.TB, s *Store, ops ...Op) uint64 {
	t.Helper()
	before := s.Version()
	version, err := s.CAS(AnyVersion, ops, false)
	if err != nil {
		t.Fatalf("CAS: %v", err)
	}
	if version != before+1 {
		t.Fatalf("CAS made version %d after %d", version, before)
	}
	return version
}

// dump is all data as "path=value" in path order.
func dump(sn *Snapshot, path string) []string {
	leaves := []string{}
	sn.Walk(mustParse(path), func(p Path, _ uint8, b []byte) bool {
		leaves = append(leaves, p.String()+"="+string(b))
		return true
	})
	return leaves
}
