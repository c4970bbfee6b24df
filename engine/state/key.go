package state

import (
	"bytes"
	"strings"
)

// Tree keys are the components of a path, each followed by a zero byte. So the
// key of a path is a byte prefix of another one exactly when the path is the
// other one or an ancestor of it, and byte order is path order. Bytes 0 and 1
// inside a component are escaped, in a way that keeps their order.
const (
	componentEnd = 0x00
	escapeByte   = 0x01
)

// treeKey is an encoded path. ends[i] is the length of the key of its first i
// components, so that ancestors share the bytes.
type treeKey struct {
	bytes []byte
	ends  []int
}

func encodePath(p Path) treeKey {
	size := 0
	for _, component := range p {
		size += len(component) + 1
	}
	key := treeKey{make([]byte, 0, size), make([]int, 1, len(p)+1)}
	for _, component := range p {
		for i := 0; i < len(component); i++ {
			if c := component[i]; c <= escapeByte {
				key.bytes = append(key.bytes, escapeByte, c+1)
			} else {
				key.bytes = append(key.bytes, c)
			}
		}
		key.bytes = append(key.bytes, componentEnd)
		key.ends = append(key.ends, len(key.bytes))
	}
	return key
}

// depth is the number of components.
func (k treeKey) depth() int { return len(k.ends) - 1 }

// at is the key of the first n components. Its capacity ends with it: the tree
// keeps it, and nothing may grow into the bytes behind it.
func (k treeKey) at(n int) []byte { return k.bytes[:k.ends[n]:k.ends[n]] }

// parentKey is the key one component shorter; key is not the root's.
func parentKey(key []byte) []byte {
	end := bytes.LastIndexByte(key[:len(key)-1], componentEnd) + 1
	return key[:end:end]
}

func decodePath(key []byte) Path {
	const end = string(rune(componentEnd))
	path := make(Path, 0, bytes.Count(key, []byte(end)))
	// One copy for all components: they are substrings of it.
	for rest := string(key); rest != ""; {
		component, after, _ := strings.Cut(rest, end)
		path = append(path, unescapeComponent(component))
		rest = after
	}
	return path
}

func unescapeComponent(s string) string {
	if strings.IndexByte(s, escapeByte) < 0 {
		return s
	}
	plain := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == escapeByte {
			i++
			plain = append(plain, s[i]-1)
		} else {
			plain = append(plain, s[i])
		}
	}
	return string(plain)
}
