package state

// revision is the state at one version. It never changes, so it is read without a lock.
type revision struct {
	version uint64
	data    dataTree
	heavy   heavyTree
	closed  bool // the store was closed; nothing follows
}

// admit says whether the changes may follow on this revision: nil, ErrClosed, a
// *FutureVersionError or a *ConflictError.
func (r *revision) admit(expected uint64, changes []change, strict bool) error {
	switch {
	case r.closed:
		return ErrClosed
	case expected == AnyVersion || expected == r.version:
		return nil
	case expected > r.version:
		return &FutureVersionError{expected, r.version}
	}
	conflicts := r.conflicts(expected, changes)
	if strict || len(conflicts) > 0 {
		return &ConflictError{expected, r.version, strict, conflicts}
	}
	return nil
}

// conflicts lists the touched places that changed after expected, each once.
func (r *revision) conflicts(expected uint64, changes []change) []Conflict {
	var found []Conflict
	type place struct {
		heavy bool
		key   string
	}
	var seen map[place]bool
	for i := range changes {
		c := &changes[i]
		changedAt := r.changedAt(c, expected)
		if changedAt == 0 {
			continue
		}
		at := place{c.heavy(), string(c.key.bytes)}
		if seen[at] {
			continue
		}
		if seen == nil {
			seen = make(map[place]bool)
		}
		seen[at] = true
		found = append(found, Conflict{c.target(), c.heavy(), changedAt})
	}
	return found
}

func (r *revision) changedAt(c *change, expected uint64) uint64 {
	if c.Kind == CheckHeavy && c.Key == "" {
		return r.heavy.anyChangedAt(expected)
	}
	if c.heavy() {
		return r.heavy.changedAt(c.key.bytes, expected)
	}
	return r.data.changedAt(c.key, expected)
}
