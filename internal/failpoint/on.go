//go:build failpoints

package failpoint

import (
	"slices"
	"strings"
	"sync/atomic"
)

// hits counts how often each point was passed, in this process and since its start.
var hits [count]atomic.Uint64

// plans has what is armed at each point, or nil.
var plans [count]atomic.Pointer[Plan]

// Plan says which calls of one point fail, and how.
type Plan struct {
	first, last uint64
	err         error
	seen, fired atomic.Uint64
}

// Arm has calls of a point fail with err: the one with number first, counted from now on and from 1, and
// those that follow it, times in all. It takes the place of what was armed there before.
func Arm(p Point, first, times uint64, err error) *Plan {
	plan := &Plan{first: first, last: first + times - 1, err: err}
	plans[p].Store(plan)
	return plan
}

// Disarm lets all calls reach the kernel again.
func Disarm() {
	for i := range plans {
		plans[i].Store(nil)
	}
}

// Seen is how often the point was passed while this plan was armed.
func (p *Plan) Seen() uint64 { return p.seen.Load() }

// Fired is how many calls it has failed.
func (p *Plan) Fired() uint64 { return p.fired.Load() }

// Fail counts a hit and gives the error that was armed for this call, or nil.
func Fail(p Point) error {
	hits[p].Add(1)
	plan := plans[p].Load()
	if plan == nil {
		return nil
	}
	if n := plan.seen.Add(1); n < plan.first || n > plan.last {
		return nil
	}
	plan.fired.Add(1)
	return plan.err
}

// Hits is how often a point was passed.
func Hits(p Point) uint64 { return hits[p].Load() }

// Of lists the points of a package.
func Of(pkg string) []Point {
	all := make([]Point, count)
	for i := range all {
		all[i] = Point(i)
	}
	return slices.DeleteFunc(all, func(p Point) bool { return !strings.HasPrefix(p.String(), pkg+": ") })
}
