package pool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a test may have left behind.

// hostVariable tells, in the environment of whatever a test starts, which process the test is in.
const hostVariable = "THEUS_POOL_TEST_HOST"

// openFiles lists descriptors and maps of memory files.
func openFiles() string {
	var b strings.Builder
	maps, _ := os.ReadFile("/proc/self/maps") // first: the Go runtime makes its poller with the first file, and keeps it
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasSuffix(target, "/fd") {
			fmt.Fprintf(&b, "%s: %s\n", e.Name(), target)
		}
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "memfd:") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// ownProcesses lists what this process has started and what that has, whoever their parent is by now.
func ownProcesses() (pids []string) {
	mark := fmt.Appendf(nil, "%s=%d\x00", hostVariable, os.Getpid())
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range entries {
		if environment, err := os.ReadFile(dir + "/environ"); err == nil && bytes.Contains(environment, mark) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

// hasChild reports whether this process has a child, be it dead and not waited for.
func hasChild() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return !errors.Is(err, unix.ECHILD)
}

// fixtures that are not through with. No test runs in parallel to another, but one may have several: what the first finds
// when it is made has to be there, and nothing else, when the last has ended.
var fixtures struct {
	count  int
	before string
}

// watchLeftovers fails the test if it leaves something behind once all its fixtures have ended.
func watchLeftovers(t *testing.T) {
	t.Helper()
	if fixtures.count == 0 {
		fixtures.before = openFiles()
	}
	fixtures.count++
	t.Cleanup(func() {
		if fixtures.count--; fixtures.count > 0 {
			return
		}
		if !happens(func() bool { return len(ownProcesses()) == 0 && !hasChild() }) { // what was killed may be about to die
			t.Errorf("processes %v are left; a child is left or was not waited for: %v", ownProcesses(), hasChild())
		}
		if !happens(func() bool { return openFiles() == fixtures.before }) {
			t.Errorf("other descriptors and maps than before:\n%sbefore:\n%s", openFiles(), fixtures.before)
		}
	})
}
