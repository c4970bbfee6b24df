package pool

import (
	"fmt"

	"github.com/theus-project/theus-go/shm"
)

// The backlog: queued and running tasks hold the version that they read, their inputs and the arrays that they were given.
// A program that makes new versions faster than tasks end would fill the heap with old ones, so in a full heap its allocations
// wait while tasks end, if there is room enough once they have. Allocations of workers do not: a task would wait for others
// that wait for it.

// Backlog is what tasks alone hold.
type Backlog struct {
	Bytes    uint64 `json:"bytes"`    // that come back when they have ended
	Tasks    int    `json:"tasks"`    // that have not, whether they hold something or not
	Returned uint64 `json:"returned"` // bytes that have come back to the heap ever, for whatever reason: whether there is progress
	settling bool   // a task is through, and what it held is just being given back
}

// BacklogError is a FullError of a heap that has room enough once tasks have ended: it is worth trying again.
type BacklogError struct {
	*shm.FullError
	Backlog Backlog `json:"backlog"`
}

func (e *BacklogError) Error() string {
	return fmt.Sprintf("%v; unfinished tasks (%d) hold %s of it: wait for results before making more",
		e.FullError, e.Backlog.Tasks, shm.Readable(e.Backlog.Bytes))
}

// Unwrap gives the FullError.
func (e *BacklogError) Unwrap() error { return e.FullError }

// makesRoom: what was refused fits once the tasks have ended.
func (b *Backlog) makesRoom(refused *shm.FullError) bool {
	if b.Tasks == 0 || refused.Asked > refused.Limit {
		return false
	}
	used := refused.InUse - min(refused.InUse, b.Bytes)
	return b.settling || used <= refused.Limit-refused.Asked
}

// backlog looks what tasks hold.
func (p *Pool) backlog() Backlog {
	held := references{segments: map[*shm.Segment]int64{}, slots: map[*shm.Slot]int64{}}
	p.mu.Lock()
	b := Backlog{Tasks: len(p.tasks) + p.unannounced}
	for t := range p.holders {
		held.addTask(t)
	}
	b.Bytes = p.retiredBehindTasks()
	p.mu.Unlock()
	if b.Tasks > 0 && p.options.Pinned != nil {
		p.options.Pinned(held.add)
	}
	b.Bytes += held.bytes()
	// Asked last: a task that ends meanwhile is among b.Tasks, and what it held may be neither in its hands any more nor free.
	p.mu.Lock()
	b.settling = p.unannounced > 0
	p.mu.Unlock()
	b.Returned = p.options.Heap.Returned().Bytes
	return b
}

// retiredBehindTasks is what busy workers map of memory that the host has let go of: they hear of it when their task ends. mu is held.
func (p *Pool) retiredBehindTasks() (bytes uint64) {
	seen := map[uint64]bool{}
	for _, w := range p.workers {
		if w == nil || len(w.assigned) == 0 {
			continue
		}
		for id := range w.watched.retired {
			if seg := w.known[id]; seg != nil && !seen[id] {
				seen[id] = true
				bytes += uint64(seg.Size())
			}
		}
	}
	return bytes
}

// references counts those that tasks have. What has no others comes back with them.
type references struct {
	segments map[*shm.Segment]int64
	slots    map[*shm.Slot]int64
}

func (r *references) addTask(t *Task) {
	if seg := t.call.Input.Segment; seg != nil {
		r.segments[seg]++
	}
	for _, a := range t.call.Arrays {
		r.add(a)
	}
	for _, a := range t.sent {
		r.add(a)
	}
}

func (r *references) add(a *Array) {
	if a.Slot != nil {
		r.slots[a.Slot]++
	} else {
		r.segments[a.Segment]++
	}
}

func (r *references) bytes() (all uint64) {
	for seg, n := range r.segments {
		if seg.Refs() == n {
			all += uint64(seg.Size())
		}
	}
	for slot, n := range r.slots {
		if slot.Refs() == n {
			all += uint64(slot.Len())
		}
	}
	return all
}
