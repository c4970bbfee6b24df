package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/pool"
)

// FuzzState sets and deletes any values at any paths, and reads them as C and workers do. What was set is what is exported,
// byte for byte; JSON that is given is JSON; everything else is an error with a type.
//
// A script is a list of updates: what to do, codec, length of the path, length of the value, path, value.
func FuzzState(f *testing.F) {
	update := func(kind, codec byte, path, value string) string {
		return string([]byte{kind, codec, byte(len(path)), byte(len(value))}) + path + value
	}
	f.Add([]byte(update(0, 2, "a.b", `{"x":1}`)+update(0, 2, "a.c", `"é"`)), "a")
	f.Add([]byte(update(0, 2, "a", "1")+update(0, 3, "a.b", "pickle")+update(1, 0, "a", "")), "")
	f.Add([]byte(update(0, 1, `a\.b`, "raw")+update(0, 9, "c", "x")), `a\.b`)
	f.Add([]byte(update(0, 2, "a", "no json")+update(0, 2, "b", "{}")), "a")
	f.Add([]byte(update(1, 0, "", "")+update(0, 2, "", "1")+update(0, 2, "a..b", "1")), "a..b")
	f.Fuzz(func(t *testing.T, script []byte, path string) {
		e, err := Open(Options{Lazy: true, Workers: 1, HeapBytes: 1 << 20})
		require.NoError(t, err)
		defer e.Close(0)
		m := leaves{}
		for len(script) >= 4 {
			kind, codec, rest := script[0], script[1], script[4:]
			p := rest[:min(int(script[2]), len(rest))]
			value := rest[len(p):min(len(p)+int(script[3]), len(rest))]
			script = rest[len(p)+len(value):]
			u := Update{Kind: Set, Path: string(p), Codec: codec, Bytes: value}
			if kind%2 == 1 {
				u = Update{Kind: Delete, Path: string(p)}
			}
			_, err := e.CAS(state.AnyVersion, []Update{u}, false)
			require.Equal(t, m.apply(t, u), err == nil, "%+v: %v", u, err)
			if err != nil {
				require.ErrorAs(t, err, new(*ArgumentError))
			}
		}
		snap, err := e.Snapshot()
		require.NoError(t, err)
		defer snap.Release()
		compareExport(t, m, snap, path)
		compareJSON(t, m, snap, path)
	})
}

// leaves is the data: values by path, written out.
type leaves map[string]leaf

type leaf struct {
	codec uint8
	bytes string
}

// apply does what an update says and reports whether it may be done.
func (m leaves) apply(t *testing.T, u Update) bool {
	p, err := state.ParsePath(u.Path)
	if err != nil || u.Kind == Set && (len(p) == 0 || u.Codec < pool.CodecRaw || u.Codec > pool.CodecPickle) {
		return false
	}
	maps.DeleteFunc(m, func(at string, _ leaf) bool { return below(at, u.Path) || u.Kind == Set && below(u.Path, at) })
	if u.Kind == Set {
		m[u.Path] = leaf{u.Codec, string(u.Bytes)}
	}
	return true
}

// below reports whether one path is another or lies below it.
func below(one, other string) bool {
	return other == "" || one == other || strings.HasPrefix(one, other+".")
}

func compareExport(t *testing.T, m leaves, snap *Snapshot, path string) {
	encoded, err := snap.Export(path)
	if err != nil {
		require.ErrorAs(t, err, new(*ArgumentError))
		return
	}
	want := maps.Clone(m)
	maps.DeleteFunc(want, func(at string, _ leaf) bool { return !below(at, path) })
	version, got := decodeState(t, encoded)
	require.Equal(t, snap.Version(), version)
	require.Equal(t, want, got)
}

// decodeState reads the state encoding of docs/internals.md.
func decodeState(t *testing.T, b []byte) (version uint64, m leaves) {
	take := func(n int) []byte {
		require.GreaterOrEqual(t, len(b), n, "the encoding ends before its fields do")
		field := b[:n]
		b = b[n:]
		return field
	}
	number := func() int { return int(binary.LittleEndian.Uint32(take(4))) }
	version, m = binary.LittleEndian.Uint64(take(8)), leaves{}
	for range number() {
		path := make(state.Path, binary.LittleEndian.Uint16(take(2)))
		for i := range path {
			path[i] = string(take(number()))
		}
		codec := take(1)[0]
		m[path.String()] = leaf{codec, string(take(number()))}
	}
	require.Empty(t, b, "bytes follow the last field")
	return version, m
}

func compareJSON(t *testing.T, m leaves, snap *Snapshot, path string) {
	text, err := snap.JSON(path)
	if err == nil {
		require.True(t, json.Valid(text), "%q", text)
		if at, ok := m[path]; ok {
			require.JSONEq(t, at.bytes, string(text))
		}
		return
	}
	known := errors.As(err, new(*CodecError)) || errors.As(err, new(*ArgumentError)) || errors.As(err, new(*KeyError))
	require.True(t, known, "%T: %v", err, err)
}
