package state

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		text string
		want Path
	}{
		{"", Path{}},
		{"a", Path{"a"}},
		{"a.b", Path{"a", "b"}},
		{`a\.b`, Path{"a.b"}},
		{`a\\.b`, Path{`a\`, "b"}},
		{`\.`, Path{"."}},
		{`\\`, Path{`\`}},
		{"größe.x y", Path{"größe", "x y"}},
		{"a\x00b.c", Path{"a\x00b", "c"}},
	} {
		got, err := ParsePath(c.text)
		if err != nil || !slices.Equal(got, c.want) || got == nil {
			t.Errorf("ParsePath(%q) = %#v, %v; want %#v", c.text, got, err, c.want)
		}
		if back := got.String(); back != c.text {
			t.Errorf("String of %#v = %q, want %q", got, back, c.text)
		}
	}
}

func TestParsePathErrors(t *testing.T) {
	for _, c := range []struct {
		text   string
		offset int
		says   string
	}{
		{".", 0, "empty component"},
		{".a", 0, "empty component"},
		{"a.", 2, "empty component"},
		{"a..b", 2, "empty component"},
		{`a\b`, 1, "backslash"},
		{`a\`, 1, "backslash"},
		{"a\xffb", 1, "UTF-8"},
		{"\uFFFD\xff", 3, "UTF-8"},
	} {
		_, err := ParsePath(c.text)
		var problem *PathError
		if !errors.As(err, &problem) {
			t.Errorf("ParsePath(%q): %v, want a *PathError", c.text, err)
			continue
		}
		if problem.Offset != c.offset || !strings.Contains(problem.Error(), c.says) {
			t.Errorf("ParsePath(%q): at %d: %v; want at %d, about %q", c.text, problem.Offset, problem, c.offset, c.says)
		}
	}
	_, err := ParsePath(strings.Repeat("x", 100_000) + ".")
	if err == nil || len(err.Error()) > 500 {
		t.Errorf("the error about a huge path is %d bytes long", len(err.Error()))
	}
}

// component draws what makes encodings go wrong: bytes near the ones with a
// meaning, and strings that are prefixes of each other.
func component() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 2, 'a', 'b', '.', '\\', 'é'}), 1, 4, -1)
}

func anyPath() *rapid.Generator[Path] {
	return rapid.Custom(func(t *rapid.T) Path {
		return Path(rapid.SliceOfN(component(), 0, 4).Draw(t, "components"))
	})
}

func TestPathRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPath().Draw(t, "path")
		parsed, err := ParsePath(p.String())
		if err != nil || !slices.Equal(parsed, p) {
			t.Fatalf("%q through %q is %q, %v", p, p.String(), parsed, err)
		}
		if decoded := decodePath(encodePath(p).bytes); !slices.Equal(decoded, p) {
			t.Fatalf("%q through its key is %q", p, decoded)
		}
	})
}

func TestKeysKeepPrefixAndOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, q := anyPath().Draw(t, "p"), anyPath().Draw(t, "q")
		if rapid.Bool().Draw(t, "q is below p") {
			q = append(slices.Clone(p), q...)
		}
		kp, kq := encodePath(p), encodePath(q)
		if got, want := bytes.HasPrefix(kq.bytes, kp.bytes), isPrefix(p, q); got != want {
			t.Fatalf("key of %q is a prefix of that of %q: %v, want %v", p, q, got, want)
		}
		if got, want := bytes.Compare(kp.bytes, kq.bytes), slices.Compare(p, q); got != want {
			t.Fatalf("keys of %q and %q compare %d, want %d", p, q, got, want)
		}
		for n := range len(p) + 1 {
			if !bytes.Equal(kp.at(n), encodePath(p[:n]).bytes) {
				t.Fatalf("key of the first %d components of %q is %q", n, p, kp.at(n))
			}
			if n > 0 && !bytes.Equal(parentKey(kp.at(n)), kp.at(n-1)) {
				t.Fatalf("parent of %q is %q", kp.at(n), parentKey(kp.at(n)))
			}
		}
	})
}

func isPrefix(p, q Path) bool { return len(p) <= len(q) && slices.Equal(p, q[:len(p)]) }
