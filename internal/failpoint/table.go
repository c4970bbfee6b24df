//go:build failpoints

package failpoint

import (
	"fmt"
	"strings"
)

// Table counts what became of failures, for a test to print: one line for each point of a package.
type Table struct{ rows [count]row }

type row struct{ calls, failed, refused, survived, broken uint64 }

// End is what a failed call led to.
type End int

// What becomes of a scenario in which calls failed.
const (
	Survived End = iota // everything went well all the same
	Refused             // some operation gave an error
	Broken              // nothing goes on, and every later operation says why
)

// Add notes a scenario that passed a point so many times and in which so many calls of it failed.
func (t *Table) Add(p Point, plan *Plan, end End) {
	r := &t.rows[p]
	r.calls = max(r.calls, plan.Seen())
	r.failed += plan.Fired()
	switch end {
	case Survived:
		r.survived++
	case Refused:
		r.refused++
	case Broken:
		r.broken++
	}
}

// Failed is how many calls of a point have failed.
func (t *Table) Failed(p Point) uint64 { return t.rows[p].failed }

// Of writes the lines of a package. hits counts every passage of the process, calls those of the longest scenario.
func (t *Table) Of(pkg string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s %8s %6s %7s | %9s %8s %7s\n", "failpoint", "hits", "calls", "failed", "survived", "refused", "broken")
	for _, p := range Of(pkg) {
		r := &t.rows[p]
		fmt.Fprintf(&b, "%-36s %8d %6d %7d | %9d %8d %7d\n", p, Hits(p), r.calls, r.failed, r.survived, r.refused, r.broken)
	}
	return b.String()
}
