package pool

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheCallsOfAFaultAreToldAndNothingElse(t *testing.T) {
	const report = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f00 (most recent call first):\n"
	line := func(file, number, function string) string {
		return "  File \"" + file + "\", line " + number + " in " + function + "\n"
	}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing": {"", nil},
		"up to the worker's loop": {
			report + line("/lib/ctypes/__init__.py", "519", "string_at") + line("/home/a b.py", "4", "bad") +
				line("/theus/worker/functions.py", "67", "call") + line("/theus/worker/tasks.py", "1", "run"),
			[]string{"string_at (/lib/ctypes/__init__.py:519)", "bad (/home/a b.py:4)"},
		},
		"recursion once":        {report + strings.Repeat(line("/a.py", "1", "f"), 60), []string{"f (/a.py:1)"}},
		"cut off by the page":   {report + line("/a.py", "1", "f") + "  File \"/b.py\", li", []string{"f (/a.py:1)"}},
		"that of a child first": {report + line("/child.py", "1", "f") + report + line("/a.py", "2", "g"), []string{"g (/a.py:2)"}},
		"not its form":          {report + "  File \"/a.py\", line 1 in f; rm -rf /\n\x1b[31m", nil},
		"only some": {
			report + line("/a.py", "1", "a") + line("/a.py", "2", "b") + line("/a.py", "3", "c") + line("/a.py", "4", "d") +
				line("/a.py", "5", "e") + line("/a.py", "6", "f"),
			[]string{"a (/a.py:1)", "b (/a.py:2)", "c (/a.py:3)", "d (/a.py:4)", "e (/a.py:5)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, faultedCalls(c.text, "/theus/worker"))
		})
	}
}
