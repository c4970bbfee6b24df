package state

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// conflictsKept is how many places Conflicts reports.
const conflictsKept = 1000

// conflictCounts counts lost CAS per place. It lets twice as many places come in as
// it reports before it drops the lesser half, so a count costs O(1) on average.
type conflictCounts struct {
	mu     sync.Mutex
	counts map[string]uint64
}

func (c *conflictCounts) add(conflicts []Conflict) {
	if len(conflicts) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]uint64)
	}
	for _, conflict := range conflicts {
		place := conflict.Path
		if conflict.Heavy {
			place = "heavy:" + place
		}
		c.counts[place]++
		if len(c.counts) > 2*conflictsKept {
			c.trim()
		}
	}
}

// most is a copy of the largest counts.
func (c *conflictCounts) most() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trim()
	if c.counts == nil {
		return map[string]uint64{}
	}
	return maps.Clone(c.counts)
}

func (c *conflictCounts) trim() {
	if len(c.counts) <= conflictsKept {
		return
	}
	places := slices.SortedFunc(maps.Keys(c.counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.counts[b], c.counts[a]), cmp.Compare(a, b))
	})
	for _, place := range places[conflictsKept:] {
		delete(c.counts, place)
	}
}
