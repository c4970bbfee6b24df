package state

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
)

// AnyVersion as the expected version of a CAS never conflicts.
const AnyVersion = math.MaxUint64

// Store is a versioned state. Make one with New.
type Store struct {
	// current is replaced under commits and pinning together, and read under neither.
	current atomic.Pointer[revision]

	// commits serialises commits and Close. It guards the lists of deletes and is
	// held while the next version is built, which for many operations takes long.
	commits      sync.Mutex
	deletedPaths tombstones
	deletedKeys  tombstones

	// pinning guards the pins and the step from one version to the next, so that
	// a snapshot pins the version that it reads. Callers take snapshots while they
	// hold an interpreter's lock, so it is not held while a version is built: next to a
	// commit of 100,000 pinned arrays (0.3 s) the slowest snapshot took 7 ms, all of
	// it for linking what ended to its pin. It is taken after commits, never before.
	pinning sync.Mutex
	pins    pinList

	conflicts conflictCounts
}

// New is an empty state at version 0.
func New() *Store { return newStore(tombstoneLimit) }

func newStore(limit int) *Store {
	s := &Store{deletedPaths: tombstones{limit: limit}, deletedKeys: tombstones{limit: limit}}
	s.current.Store(&revision{data: newDataTree(), heavy: newHeavyTree()})
	return s
}

// Version is the current version.
func (s *Store) Version() uint64 { return s.current.Load().version }

// CAS applies the operations in their order, all or none, as one new version,
// and returns that version.
//
// It fails with a *ConflictError when a touched place, one above or one below it
// was touched after expected; with strict also when expected is not the
// current version. AnyVersion never conflicts, strict or not. An expected version above the current one is a
// *FutureVersionError, an operation that makes no sense an *OpError, a closed
// store ErrClosed. With an error the version returned is the current one.
//
// Without operations, or with checks alone, it only compares and makes no new version.
func (s *Store) CAS(expected uint64, ops []Op, strict bool) (version uint64, err error) {
	return s.CASWith(expected, ops, strict, nil)
}

// CASWith is CAS with a last step: when it is certain that there is no conflict, and before anyone can see the
// new version, prepare is called with its number, under the lock that serialises commits. With an
// error from prepare nothing changes. This is where arrays are frozen: one that loses stays writable.
func (s *Store) CASWith(expected uint64, ops []Op, strict bool, prepare func(version uint64) error) (version uint64, err error) {
	changes, err := plan(ops)
	if err != nil {
		return s.Version(), err
	}
	// Losers are told without waiting for whoever commits now, and before their arrays
	// are touched. The commit looks again.
	seen := s.current.Load()
	if err := seen.admit(expected, changes, strict); err != nil {
		return s.refuse(seen, err)
	}
	if onlyChecks(changes) {
		return seen.version, nil
	}
	// Retained before any reader can see them: another commit may replace and
	// release them right away.
	arrays := published(changes)
	for _, array := range arrays {
		array.Retain()
	}
	now, freed, err := s.commit(seen, expected, changes, strict, prepare)
	if err != nil {
		releaseAll(arrays)
		return s.refuse(now, err)
	}
	releaseAll(freed)
	return now.version, nil
}

// refuse counts a conflict.
func (s *Store) refuse(now *revision, err error) (uint64, error) {
	if conflict := (*ConflictError)(nil); errors.As(err, &conflict) {
		s.conflicts.add(conflict.Conflicts)
	}
	return now.version, err
}

// commit makes the next revision current, or returns the current one and the
// error. freed are arrays for the caller to release.
func (s *Store) commit(seen *revision, expected uint64, changes []change, strict bool, prepare func(version uint64) error) (now *revision, freed []Held, err error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	now = s.current.Load()
	if now != seen {
		if err := now.admit(expected, changes, strict); err != nil {
			return now, nil, err
		}
	}
	if prepare != nil {
		if err := prepare(now.version + 1); err != nil {
			return now, nil, err
		}
	}
	next, ended := s.build(now, changes)
	return next, s.advance(next, ended), nil
}

// build makes the revision after now, and lists the arrays that end with it.
func (s *Store) build(now *revision, changes []change) (next *revision, ended []Heavy) {
	version := now.version + 1
	data := now.data.edit(version, &s.deletedPaths)
	heavy := now.heavy.edit(version, &s.deletedKeys)
	for i := range changes {
		c := &changes[i]
		switch c.Kind {
		case SetHeavy:
			heavy.set(c.key.bytes, c.Array)
		case DeleteHeavy:
			heavy.delete(c.key.bytes)
		case Set:
			data.set(c.key, c.Codec, c.Bytes)
		case Delete:
			data.delete(c.key)
		}
	}
	data.prune()
	heavy.prune()
	return &revision{version: version, data: data.done(), heavy: heavy.done()}, heavy.ended
}

// advance makes next current and retires what ended with it.
func (s *Store) advance(next *revision, ended []Heavy) (freed []Held) {
	s.pinning.Lock()
	defer s.pinning.Unlock()
	s.current.Store(next)
	return s.pins.retire(ended)
}

// Snapshot pins the current version. The caller releases it. After Close it is
// empty and pins nothing.
func (s *Store) Snapshot() *Snapshot { return s.snapshot(false) }

// TaskSnapshot is Snapshot for a task, which releases it at its end.
func (s *Store) TaskSnapshot() *Snapshot { return s.snapshot(true) }

func (s *Store) snapshot(ofTask bool) *Snapshot {
	s.pinning.Lock()
	defer s.pinning.Unlock()
	now := s.current.Load()
	sn := &Snapshot{store: s, version: now.version, ofTask: ofTask}
	if !now.closed {
		sn.pin = s.pins.pin(now.version, ofTask)
	}
	sn.refs.Store(1)
	sn.reads.Store(now)
	return sn
}

// HeldByTasks lists the arrays of older versions that would be let go of if all tasks ended now, each as often as
// it ended. They may be gone by the time the caller looks at them.
func (s *Store) HeldByTasks() []Held {
	s.pinning.Lock()
	defer s.pinning.Unlock()
	return s.pins.heldByTasks()
}

// again pins the version of a snapshot that is held meanwhile once more, for a task.
func (s *Store) again(of *Snapshot) *Snapshot {
	s.pinning.Lock()
	defer s.pinning.Unlock()
	sn := &Snapshot{store: s, version: of.version, pin: of.pin, ofTask: true}
	if sn.pin != nil {
		s.pins.again(sn.pin, true)
	}
	sn.refs.Store(1)
	sn.reads.Store(of.reads.Load())
	return sn
}

// unpin ends one snapshot.
func (s *Store) unpin(p *pin, byTask bool) {
	if p == nil {
		return
	}
	s.pinning.Lock()
	freed := s.pins.unpin(p, byTask)
	s.pinning.Unlock()
	releaseAll(freed)
}

// Close ends the current version without a successor: its arrays are released
// as soon as no snapshot holds them. Snapshots stay readable until
// they are released. Later changes fail with ErrClosed. Calling it again
// changes nothing.
func (s *Store) Close() {
	releaseAll(s.end())
}

func (s *Store) end() (freed []Held) {
	s.commits.Lock()
	defer s.commits.Unlock()
	now := s.current.Load()
	var ended []Heavy
	now.heavy.each(func(_ string, slot Heavy) { ended = append(ended, slot) })
	s.deletedPaths, s.deletedKeys = tombstones{}, tombstones{}
	last := &revision{version: now.version, data: newDataTree(), heavy: newHeavyTree(), closed: true}
	return s.advance(last, ended)
}

// Conflicts tells how often a CAS lost on each place: the dotted path, or
// "heavy:" and the key. Only the 1,000 most conflicted are kept.
func (s *Store) Conflicts() map[string]uint64 { return s.conflicts.most() }

// Stats are figures about a store at one moment.
type Stats struct {
	Version   uint64 // the current version
	Arrays    int    // heavy keys in the current version
	Snapshots int    // that are not released yet
	Pins      int    // different versions that they pin
	OldestPin uint64 // the lowest of these versions; the current one if there is none
	Retired   int    // ended arrays that wait for pins
}

// Stats reads the figures. It does not wait for commits.
func (s *Store) Stats() Stats {
	s.pinning.Lock()
	defer s.pinning.Unlock()
	now := s.current.Load()
	stats := Stats{
		Version:   now.version,
		Arrays:    now.heavy.count,
		Snapshots: s.pins.refs,
		Pins:      s.pins.pins,
		OldestPin: now.version,
		Retired:   s.pins.waiting,
	}
	if s.pins.oldest != nil {
		stats.OldestPin = s.pins.oldest.version
	}
	return stats
}

func releaseAll(arrays []Held) {
	for _, array := range arrays {
		array.Release()
	}
}
