package state

import (
	"fmt"
	"unicode/utf8"
)

// Held is a heavy array, reference counted by its owner. The store calls Retain
// once for each version range in which the array stands under a key, and Release
// once when no current or pinned version can reach it there any more. Neither is called
// with a lock of the store held. Who passes an array to CAS holds a reference of
// their own until CAS returns.
//
// A CAS that loses a race after its first check retains and releases the arrays
// it would have published.
type Held interface {
	Retain()
	Release()
}

// OpKind says what an Op does.
type OpKind uint8

// The kinds start at 1, so that a forgotten Kind is an error.
const (
	SetHeavy    OpKind = iota + 1 // Key is Array from now on
	DeleteHeavy                   // Key is gone; fine when it is absent
	Set                           // Path is a leaf with Codec and Bytes; what was below it is gone
	Delete                        // Path and all below it are gone; fine when it is absent
	CheckHeavy                    // Key stays as it is: a conflict as if it was touched, and nothing else; "" is all keys
	Check                         // the same for Path; the empty one is all data
)

func (k OpKind) String() string {
	switch k {
	case SetHeavy:
		return "set heavy"
	case DeleteHeavy:
		return "delete heavy"
	case Set:
		return "set"
	case Delete:
		return "delete"
	case CheckHeavy:
		return "check heavy"
	case Check:
		return "check"
	}
	return fmt.Sprintf("OpKind(%d)", uint8(k))
}

// Op is one change in a CAS.
type Op struct {
	Kind  OpKind
	Path  Path   // Set, Delete, Check
	Key   string // SetHeavy, DeleteHeavy, CheckHeavy; taken literally, dots mean nothing; never empty but for CheckHeavy
	Codec uint8  // Set: how Bytes are encoded; the store does not look inside
	Bytes []byte // Set: kept as they are, so the caller must not change them afterwards
	Array Held   // SetHeavy
}

// OpError reports an operation that makes no sense. Nothing was changed.
type OpError struct {
	Index  int    // of the operation in the list
	Kind   OpKind // of the operation
	Target string // its dotted path, or its heavy key
	Reason string // what is wrong, and what to do
}

func (e *OpError) Error() string {
	return fmt.Sprintf("operation %d (%s %s): %s", e.Index, e.Kind, quoteShort(e.Target), e.Reason)
}

// change is an Op that was checked, with the key of its place in the tree. Heavy
// keys have depth 0.
type change struct {
	*Op
	key treeKey
}

func (c *change) heavy() bool {
	return c.Kind == SetHeavy || c.Kind == DeleteHeavy || c.Kind == CheckHeavy
}

// onlyChecks: none of them changes anything.
func onlyChecks(changes []change) bool {
	for i := range changes {
		if changes[i].Kind != Check && changes[i].Kind != CheckHeavy {
			return false
		}
	}
	return true
}

// target is the place as messages and counts name it.
func (c *change) target() string {
	if c.heavy() {
		return c.Key
	}
	return c.Path.String()
}

// plan checks the operations and encodes their places. The error is an *OpError.
func plan(ops []Op) ([]change, error) {
	changes := make([]change, len(ops))
	for i := range ops {
		changes[i].Op = &ops[i]
		if problem := changes[i].prepare(); problem != "" {
			return nil, &OpError{i, ops[i].Kind, changes[i].target(), problem}
		}
	}
	return changes, nil
}

func (c *change) prepare() (problem string) {
	switch c.Kind {
	case SetHeavy, DeleteHeavy, CheckHeavy:
		if !utf8.ValidString(c.Key) {
			return "the key is not valid UTF-8; encode keys as UTF-8"
		}
		if c.Key == "" && c.Kind != CheckHeavy {
			return "the key is empty, which no array can have"
		}
		if c.Kind == SetHeavy && c.Array == nil {
			return "no array was given; set Array, or use DeleteHeavy"
		}
		c.key.bytes = []byte(c.Key)
		return ""
	case Set, Delete, Check:
		c.key = encodePath(c.Path)
		return c.Path.problem()
	}
	return "unknown kind of operation; use Set, Delete, Check, SetHeavy, DeleteHeavy or CheckHeavy"
}

// published lists the arrays that are in the state after the changes: of several
// under one key only the last.
func published(changes []change) []Held {
	last := make(map[string]Held)
	for i := range changes {
		switch changes[i].Kind {
		case SetHeavy:
			last[changes[i].Key] = changes[i].Array
		case DeleteHeavy:
			delete(last, changes[i].Key)
		}
	}
	arrays := make([]Held, 0, len(last))
	for _, array := range last {
		arrays = append(arrays, array)
	}
	return arrays
}
