package state

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// FuzzPath parses any two texts. What is a path comes back as it was written, and its key in the tree sorts and nests as
// the path does.
func FuzzPath(f *testing.F) {
	for _, texts := range [][2]string{
		{"a.b", "a"}, {"", "a"}, {`a\.b`, "a.b"}, {`a\\.b`, `a\\`}, {"a\x00.b", "a\x01"}, {"größe", "gr"}, {"a..b", "."}, {`\`, "a\xff"},
	} {
		f.Add(texts[0], texts[1])
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		p, err := ParsePath(one)
		if err != nil {
			var problem *PathError
			if !errors.As(err, &problem) || problem.Offset < 0 || problem.Offset > len(one) || problem.Reason == "" {
				t.Fatalf("ParsePath(%q): %v", one, err)
			}
			return
		}
		if back := p.String(); back != one {
			t.Fatalf("ParsePath(%q) is written %q", one, back)
		}
		key := encodePath(p)
		if back := decodePath(key.bytes); !slices.Equal(back, p) {
			t.Fatalf("the key of %q is that of %q", p, back)
		}
		q, err := ParsePath(other)
		if err != nil {
			return
		}
		otherKey := encodePath(q)
		if bytes.Compare(key.bytes, otherKey.bytes) != slices.Compare(p, q) {
			t.Fatalf("keys of %q and %q sort otherwise than they do", p, q)
		}
		isAbove := len(p) <= len(q) && slices.Equal(p, q[:len(p)])
		if bytes.HasPrefix(otherKey.bytes, key.bytes) != isAbove {
			t.Fatalf("the keys of %q and %q nest otherwise than they do", p, q)
		}
	})
}
