package state

// tombstoneLimit bounds the tombstones of the data and those of the heavy keys.
// A tombstone costs some 300 bytes. Beyond the limit the floor rises, and a CAS that creates a
// path can then conflict without need, if it is older than the last 10,000 deletes.
const tombstoneLimit = 10_000

// tombstones remembers deletes, oldest first, so that the oldest can be
// forgotten. An entry is stale when its key was touched again or wiped since;
// stale entries count towards the limit, which bounds the list itself.
type tombstones struct {
	limit  int
	queue  []tombstone
	popped int // entries at the head that are gone
}

type tombstone struct {
	key     []byte
	version uint64 // of the delete
}

func (t *tombstones) add(key []byte, version uint64) {
	t.queue = append(t.queue, tombstone{key, version})
}

func (t *tombstones) len() int { return len(t.queue) - t.popped }

// excess takes the oldest entry while there are too many.
func (t *tombstones) excess() (tombstone, bool) {
	if t.len() <= t.limit {
		return tombstone{}, false
	}
	oldest := t.queue[t.popped]
	t.queue[t.popped] = tombstone{}
	t.popped++
	// Move the rest down once half is gone: each entry is moved once on average.
	if t.popped*2 > len(t.queue) {
		rest := copy(t.queue, t.queue[t.popped:])
		clear(t.queue[rest:])
		t.queue, t.popped = t.queue[:rest], 0
	}
	return oldest, true
}
