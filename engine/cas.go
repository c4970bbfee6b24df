package engine

import (
	"fmt"

	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/pool"
)

// UpdateKind says what an Update does.
type UpdateKind int

// The operations of theus_cas, with its numbers.
const (
	SetHeavy    UpdateKind = 1
	DeleteHeavy UpdateKind = 2
	Set         UpdateKind = 3
	Delete      UpdateKind = 4
	CheckHeavy  UpdateKind = 5
	Check       UpdateKind = 6
)

// Update is one change within a compare-and-swap.
type Update struct {
	Kind  UpdateKind
	Path  string // data: dotted; heavy: a literal key; a check of "" is one of all data
	Codec uint8
	Bytes []byte
	Buf   *Buf
}

// CAS applies updates as one new version, all or none; see theus_cas. On a conflict version is the current one.
func (e *Engine) CAS(expected uint64, updates []Update, strict bool) (version uint64, err error) {
	if err := e.Check(); err != nil {
		return 0, err
	}
	ops := make([]state.Op, len(updates))
	var bufs []*Buf
	var entries []*entry
	for i := range updates {
		if ops[i], err = e.op(&updates[i]); err != nil {
			return 0, err
		}
		if ops[i].Kind != state.SetHeavy {
			continue
		}
		buf := updates[i].Buf
		if err := buf.begin(); err != nil {
			return 0, err
		}
		defer buf.end()
		a, err := buf.forState()
		if err != nil {
			return 0, err
		}
		defer a.Unref() // the store has references of its own by then
		published := &entry{*a}
		published.array.Key = ops[i].Key
		ops[i].Array = published
		bufs, entries = append(bufs, buf), append(entries, published)
	}
	// Arrays are frozen by the store's leave: after it has found no conflict, before anyone can see the new version.
	prepare := func(version uint64) error {
		for _, published := range entries {
			published.array.Version = version
		}
		return publishAll(bufs, version)
	}
	return e.store.CASWith(expected, ops, strict, prepare)
}

func (e *Engine) op(u *Update) (state.Op, error) {
	switch u.Kind {
	case SetHeavy:
		if err := checkNamed(u.Path); err != nil {
			return state.Op{}, err
		}
		if u.Buf == nil {
			return state.Op{}, &ArgumentError{fmt.Sprintf("no array is given for heavy key %q", u.Path)}
		}
		if u.Buf.engine != e {
			return state.Op{}, &ArgumentError{fmt.Sprintf("the array for heavy key %q belongs to another engine", u.Path)}
		}
		return state.Op{Kind: state.SetHeavy, Key: u.Path}, nil
	case DeleteHeavy:
		return state.Op{Kind: state.DeleteHeavy, Key: u.Path}, nil
	case CheckHeavy:
		return state.Op{Kind: state.CheckHeavy, Key: u.Path}, nil
	case Set, Delete, Check:
		path, err := state.ParsePath(u.Path)
		if err == nil && len(path) == 0 && u.Kind == Set {
			err = fmt.Errorf("the root of the data cannot be set, only keys of it")
		}
		if err != nil {
			return state.Op{}, &ArgumentError{err.Error()}
		}
		switch u.Kind {
		case Delete:
			return state.Op{Kind: state.Delete, Path: path}, nil
		case Check:
			return state.Op{Kind: state.Check, Path: path}, nil
		}
		if u.Codec != pool.CodecRaw && u.Codec != pool.CodecJSON && u.Codec != pool.CodecPickle {
			return state.Op{}, &ArgumentError{fmt.Sprintf("unknown codec %d for %q", u.Codec, u.Path)}
		}
		return state.Op{Kind: state.Set, Path: path, Codec: u.Codec, Bytes: u.Bytes}, nil
	}
	return state.Op{}, &ArgumentError{fmt.Sprintf("unknown operation %d for %q", u.Kind, u.Path)}
}
