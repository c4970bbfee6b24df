package pool

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Where a worker was when native code ended it: Python's faulthandler writes that into the status page, innermost call first. It is
// text from a process that went wrong, so only lines of the known form count.

const callsTold = 5 // in a message, of those that there were

var callLine = regexp.MustCompile(`(?m)^  File "([^"\n]{1,300})", line ([0-9]{1,9}) in (\S{1,100})$`)

// whereItFaulted gives the user's calls that led there, for a message; "" if nothing is known. mu is held.
func (w *worker) whereItFaulted() string {
	calls := faultedCalls(w.page.Text(), filepath.Dir(w.pool.options.WorkerMain))
	if len(calls) == 0 {
		return ""
	}
	return ". Python was in " + strings.Join(calls, ", called from ")
}

// faultedCalls gives the calls of the last report in a text, without those of the worker's own loop.
func faultedCalls(text, own string) (calls []string) {
	if last := strings.LastIndex(text, "Fatal Python error"); last > 0 {
		text = text[last:] // those before are of children that user code forked
	}
	for _, found := range callLine.FindAllStringSubmatch(text, -1) {
		file, line, function := found[1], found[2], found[3]
		if filepath.Dir(file) == own {
			break
		}
		call := fmt.Sprintf("%s (%s:%s)", function, file, line)
		if !slices.Contains(calls, call) { // recursion fills the page with one call
			calls = append(calls, call)
		}
		if len(calls) == callsTold {
			break
		}
	}
	return calls
}
