package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/pool"
)

// Snapshot is one pinned version of the state.
type Snapshot struct {
	engine *Engine
	snap   *state.Snapshot
}

// Snapshot pins the current version.
func (e *Engine) Snapshot() (*Snapshot, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	return &Snapshot{e, e.store.Snapshot()}, nil
}

// Version is the pinned one.
func (s *Snapshot) Version() uint64 { return s.snap.Version() }

// Release ends the pin.
func (s *Snapshot) Release() { s.snap.Release() }

// Get gives a key's array as a Buf of its own.
func (s *Snapshot) Get(key string) (*Buf, error) {
	if !s.snap.Retain() { // an array that another thread lets go of meanwhile must not end here
		return nil, ErrReleased
	}
	defer s.snap.Release()
	a, presence := s.Heavy(key)
	switch presence {
	case pool.Unpublished:
		return nil, &KeyError{Key: key, Kind: ErrUnpublished, Hint: ": publish it with arr.publish() or compare_and_swap"}
	case pool.Absent:
		return nil, &KeyError{Key: key, Kind: ErrNotFound, Hint: s.suggestion(key)}
	}
	return &Buf{engine: s.engine, array: a, version: a.Version}, nil
}

func (s *Snapshot) suggestion(key string) string {
	near := s.Nearest(key)
	if len(near) == 0 {
		return fmt.Sprintf(": version %d has no heavy arrays", s.Version())
	}
	return fmt.Sprintf(": version %d has %s", s.Version(), strings.Join(near[:min(len(near), 5)], ", "))
}

// Heavy implements pool.Source.
func (s *Snapshot) Heavy(key string) (*pool.Array, pool.Presence) {
	if h, ok := s.snap.Heavy(key); ok {
		return h.Array.(*entry).read(), pool.Present
	}
	if s.engine.isBuilding(key) {
		return nil, pool.Unpublished
	}
	return nil, pool.Absent
}

// Keys implements pool.Source: the heavy keys, sorted.
func (s *Snapshot) Keys() []string {
	if keys := s.snap.HeavyKeys(); keys != nil {
		return keys
	}
	return []string{}
}

const maxNearest = 50

// Nearest lists the heavy keys most like key, the likest first.
func (s *Snapshot) Nearest(key string) []string {
	keys := s.snap.HeavyKeys()
	likeness := make(map[string]int, len(keys))
	for _, k := range keys {
		likeness[k] = sharedPairs(key, k)
	}
	sort.SliceStable(keys, func(i, j int) bool { return likeness[keys[i]] > likeness[keys[j]] })
	return slices.Clone(keys[:min(len(keys), maxNearest)])
}

// sharedPairs counts the pairs of neighbouring letters that two words have in common.
func sharedPairs(a, b string) int {
	n := 0
	for i := 0; i+2 <= len(a); i++ {
		if strings.Contains(b, a[i:i+2]) {
			n++
		}
	}
	return n
}

// Export implements pool.Source: the state encoding of docs/internals.md.
func (s *Snapshot) Export(path string) ([]byte, error) {
	p, err := state.ParsePath(path)
	if err != nil {
		return nil, &ArgumentError{err.Error()}
	}
	le := binary.LittleEndian
	out := le.AppendUint64(nil, s.Version())
	out = le.AppendUint32(out, 0)
	n := uint32(0)
	s.snap.Walk(p, func(path state.Path, codec uint8, b []byte) bool {
		out = le.AppendUint16(out, uint16(len(path)))
		for _, component := range path {
			out = le.AppendUint32(out, uint32(len(component)))
			out = append(out, component...)
		}
		out = append(out, codec)
		out = le.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
		n++
		return true
	})
	le.PutUint32(out[8:], n)
	return out, nil
}

// CodecError says that a value cannot be given as JSON.
type CodecError struct {
	Path  string
	Codec uint8
}

func (e *CodecError) Error() string {
	if e.Codec == pool.CodecJSON {
		return e.Path + " was stored as JSON and is none"
	}
	names := map[uint8]string{pool.CodecRaw: "raw bytes", pool.CodecPickle: "a Python pickle"}
	return fmt.Sprintf("%s is stored as %s, not as JSON", e.Path, names[e.Codec])
}

// JSON gives the value at a path; an inner path gives an object.
func (s *Snapshot) JSON(path string) ([]byte, error) {
	p, err := state.ParsePath(path)
	if err != nil {
		return nil, &ArgumentError{err.Error()}
	}
	var root any
	found := false
	s.snap.Walk(p, func(leaf state.Path, codec uint8, b []byte) bool {
		if codec != pool.CodecJSON || !json.Valid(b) { // nobody looked at it when it came
			err = &CodecError{leaf.String(), codec}
			return false
		}
		root, found = graft(root, leaf[len(p):], b), true
		return true
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &KeyError{Key: path, Kind: ErrNotFound}
	}
	return marshal(root)
}

// graft puts a leaf into a tree of maps.
func graft(tree any, path state.Path, leaf []byte) any {
	if len(path) == 0 {
		return json.RawMessage(leaf)
	}
	node, ok := tree.(map[string]any)
	if !ok {
		node = map[string]any{}
	}
	node[path[0]] = graft(node[path[0]], path[1:], leaf)
	return node
}

// marshal is json.Marshal without turning < and > into escapes.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimRight(buf.Bytes(), "\n"), err
}
