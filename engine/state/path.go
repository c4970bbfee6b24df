package state

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxDepth is the largest number of components of a path in a CAS. Each level
// costs a node, and encoders of nested values recurse.
const MaxDepth = 1000

// Path names a place in the data: one string per level, the outermost first.
// The empty path is the root. A component may contain any characters, dots
// included, but is never empty.
type Path []string

// PathError says why a text is not a path.
type PathError struct {
	Text   string // the whole text
	Offset int    // the byte at which it goes wrong
	Reason string // what is wrong there, and what to write instead
}

func (e *PathError) Error() string {
	return fmt.Sprintf("path %s: at byte %d: %s", quoteShort(e.Text), e.Offset, e.Reason)
}

// ParsePath reads a dotted path: "a.b" is a → b. A backslash takes away the
// meaning of a dot or a backslash that follows it. The empty text is the root.
// The error is a *PathError.
func ParsePath(s string) (Path, error) {
	if s == "" {
		return Path{}, nil
	}
	if !utf8.ValidString(s) {
		return nil, &PathError{s, invalidUTF8At(s), "not valid UTF-8; encode paths as UTF-8"}
	}
	path := make(Path, 0, strings.Count(s, ".")+1)
	var component strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '.':
			if component.Len() == 0 {
				return nil, &PathError{s, i, "empty component; write a literal dot as \\."}
			}
			path = append(path, component.String())
			component.Reset()
		case '\\':
			i++
			if i == len(s) || (s[i] != '.' && s[i] != '\\') {
				return nil, &PathError{s, i - 1, "a backslash stands only before a dot or a backslash; " +
					"write a literal backslash as \\\\"}
			}
			component.WriteByte(s[i])
		default:
			component.WriteByte(s[i])
		}
	}
	if component.Len() == 0 {
		return nil, &PathError{s, len(s), "empty component; drop the last dot, or write a literal dot as \\."}
	}
	return append(path, component.String()), nil
}

var escapeComponent = strings.NewReplacer(`\`, `\\`, `.`, `\.`)

// String is the dotted form that ParsePath reads.
func (p Path) String() string {
	var dotted strings.Builder
	for i, component := range p {
		if i > 0 {
			dotted.WriteByte('.')
		}
		dotted.WriteString(escapeComponent.Replace(component))
	}
	return dotted.String()
}

// problem says why p cannot be touched, or "".
func (p Path) problem() string {
	if len(p) > MaxDepth {
		return fmt.Sprintf("the path has %d components, more than %d; nest less deeply", len(p), MaxDepth)
	}
	for i, component := range p {
		if component == "" {
			return fmt.Sprintf("component %d of the path is empty; give it a name", i)
		}
		if !utf8.ValidString(component) {
			return fmt.Sprintf("component %d of the path is not valid UTF-8; encode paths as UTF-8", i)
		}
	}
	return ""
}

func invalidUTF8At(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return len(s)
}

// quoteShort quotes a key or path for a message and keeps the message readable
// when it is huge.
func quoteShort(s string) string {
	const most = 200
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q… (%d bytes)", s[:most], len(s))
}
