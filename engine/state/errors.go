package state

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// ErrClosed is what CAS returns after Close.
var ErrClosed = errors.New("the state is closed and takes no more changes; open a new engine")

// Conflict is one place that a CAS touches and that changed in between.
type Conflict struct {
	Path  string `json:"path"` // dotted path, or the heavy key as it is; "" for a check of all data, or of all arrays
	Heavy bool   `json:"heavy"`
	// ChangedAt is the last version that touched it, something above or something
	// below it. When that was forgotten it is the last in which it can have been.
	ChangedAt uint64 `json:"changed_at"`
}

// ConflictError is a CAS that lost: somebody else changed the state after the
// version that the caller expected. Nothing was changed. Take a new snapshot,
// compute the update again and try again.
type ConflictError struct {
	Expected uint64 `json:"expected"` // the version given to CAS
	Current  uint64 `json:"current"`  // the version of the store
	Strict   bool   `json:"strict"`   // the CAS demanded that Expected is the current version
	// Conflicts lists each touched place that changed after Expected, in the
	// order of the operations. A strict CAS can fail without any.
	Conflicts []Conflict `json:"conflicts"`
}

func (e *ConflictError) Error() string {
	const named = 10 // of a thousand keys, these tell enough
	var text strings.Builder
	if e.Strict {
		text.WriteString("Strict CAS Mismatch")
	} else {
		text.WriteString("CAS Version Mismatch (Conflict Detected)")
	}
	fmt.Fprintf(&text, ": Expected %d, Found %d", e.Expected, e.Current)
	for i, conflict := range e.Conflicts {
		switch i {
		case 0:
			text.WriteString(" (Keys Changed): ")
		case named:
			fmt.Fprintf(&text, ", and %d more", len(e.Conflicts)-named)
			return text.String()
		default:
			text.WriteString(", ")
		}
		fmt.Fprintf(&text, "%s (changed at %d)", conflict.place(), conflict.ChangedAt)
	}
	return text.String()
}

func (c *Conflict) place() string {
	if c.Heavy {
		return cmp.Or(c.Path, "(all arrays)")
	}
	return cmp.Or(c.Path, "(all data)")
}

// FutureVersionError is a CAS that expects a version which does not exist yet.
// It is a mistake in the program, not a race.
type FutureVersionError struct {
	Expected uint64 `json:"expected"` // the version given to CAS
	Current  uint64 `json:"current"`  // the version of the store
}

func (e *FutureVersionError) Error() string {
	return fmt.Sprintf("expected version %d does not exist yet: the state is at version %d; "+
		"pass the version of a snapshot of this state", e.Expected, e.Current)
}
