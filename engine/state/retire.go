package state

// Retirement finds out when the last pinned version that holds an array is gone.
//
// An array that ended in version v can only be held by pins older than v, and
// new pins are always of the current version, v or later. So of all pins that
// will ever hold it, the newest one older than v is known at once: it is the
// newest pin there is when v is committed. The array waits there. When that pin ends, the
// next older one takes its place: either it still holds the array, because the
// array was born by then, and the array waits there, or no pin does.
//
// Arrays wait in a heap, the latest born on top, so that a pin that ends gives up exactly the
// arrays that are free, and hands all others to the older pin in one meld. An
// array costs O(log n) however many pins it outlives and in whatever order they end.

// pin keeps one version alive.
type pin struct {
	version      uint64
	refs         int      // snapshots
	tasks        int      // of them, those of tasks
	older, newer *pin     // the neighbouring pins by version
	waiting      *retired // ended arrays of which this is the newest holder
}

// pinList has the pins in the order of their versions. It has no lock of its own.
type pinList struct {
	oldest, newest *pin
	pins           int
	refs           int // over all pins
	waiting        int // arrays, over all pins
}

// pin adds a reference to the version, which is the current one.
func (l *pinList) pin(version uint64, byTask bool) *pin {
	if l.newest != nil && l.newest.version == version {
		l.again(l.newest, byTask)
		return l.newest
	}
	p := &pin{version: version, older: l.newest}
	l.again(p, byTask)
	if l.newest != nil {
		l.newest.newer = p
	} else {
		l.oldest = p
	}
	l.newest = p
	l.pins++
	return p
}

// again adds a reference to a pin.
func (l *pinList) again(p *pin, byTask bool) {
	l.refs++
	p.refs++
	if byTask {
		p.tasks++
	}
}

// unpin takes a reference away and returns the arrays that nobody holds now.
func (l *pinList) unpin(p *pin, byTask bool) (freed []Held) {
	l.refs--
	p.refs--
	if byTask {
		p.tasks--
	}
	if p.refs > 0 {
		return nil
	}
	l.unlink(p)
	waiting := p.waiting
	p.waiting = nil
	if p.older == nil {
		freed = waiting.appendAll(nil)
	} else {
		for waiting != nil && waiting.born > p.older.version {
			freed = append(freed, waiting.array)
			waiting = meld(waiting.left, waiting.right)
		}
		p.older.waiting = meld(p.older.waiting, waiting)
	}
	l.waiting -= len(freed)
	return freed
}

func (l *pinList) unlink(p *pin) {
	l.pins--
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		l.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		l.newest = p.older
	}
}

// retire takes arrays that ended with the version being committed, while no pin
// is that new yet. It returns those that no pin holds.
func (l *pinList) retire(ended []Heavy) (freed []Held) {
	for _, slot := range ended {
		if l.newest == nil || l.newest.version < slot.ChangedAt {
			freed = append(freed, slot.Array)
			continue
		}
		entry := &retired{array: slot.Array, born: slot.ChangedAt, rank: 1}
		l.newest.waiting = meld(l.newest.waiting, entry)
		l.waiting++
	}
	return freed
}

// heldByTasks lists ended arrays that tasks alone hold, each as often as it ended. One that waits at a pin is also held by the
// older pins since it was born, so it is theirs alone when it was born after the newest of those that somebody else has, too.
func (l *pinList) heldByTasks() (arrays []Held) {
	others := uint64(0) // after the newest version that is not pinned by tasks alone
	for p := l.oldest; p != nil; p = p.newer {
		if p.refs > p.tasks {
			others = p.version + 1
		}
		arrays = p.waiting.appendSince(others, arrays)
	}
	return arrays
}

// retired is an ended array, and the root of a leftist heap of them.
type retired struct {
	array       Held
	born        uint64 // the first version that has it
	rank        int    // length of the path down the right side
	left, right *retired
}

// meld joins two heaps. It recurses down right sides, which a leftist heap keeps
// logarithmic.
func meld(a, b *retired) *retired {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	if a.born < b.born {
		a, b = b, a
	}
	a.right = meld(a.right, b)
	if a.left == nil || a.left.rank < a.right.rank {
		a.left, a.right = a.right, a.left
	}
	a.rank = 1
	if a.right != nil {
		a.rank += a.right.rank
	}
	return a
}

// appendAll lists the whole heap.
func (r *retired) appendAll(arrays []Held) []Held { return r.appendSince(0, arrays) }

// appendSince lists what was born in a version or later; below what is older, everything is. It keeps its own
// stack: left sides can be as long as the heap is large.
func (r *retired) appendSince(version uint64, arrays []Held) []Held {
	for stack := []*retired{r}; len(stack) > 0; {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if top == nil || top.born < version {
			continue
		}
		arrays = append(arrays, top.array)
		stack = append(stack, top.left, top.right)
	}
	return arrays
}
