package engine

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openFiles lists descriptors and maps of memory files.
func openFiles() (all []string) {
	maps, _ := os.ReadFile("/proc/self/maps") // first: the Go runtime makes its poller with the first file, and keeps it
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasSuffix(target, "/fd") {
			all = append(all, e.Name()+": "+target)
		}
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "memfd:") {
			all = append(all, line)
		}
	}
	return all
}

// engines that are open. No test runs in parallel to another, but one may have several: what the first finds when it is
// opened may be there, and nothing else, when the last is closed.
var engines struct {
	count  int
	before []string
}

// added lists what was not there before.
func added() (all []string) {
	for _, name := range openFiles() {
		if !slices.Contains(engines.before, name) {
			all = append(all, name)
		}
	}
	return all
}

// watchLeftovers fails the test if its engines leave descriptors or maps.
func watchLeftovers(t *testing.T) {
	t.Helper()
	if engines.count == 0 {
		engines.before = openFiles()
	}
	engines.count++
	t.Cleanup(func() {
		if engines.count--; engines.count > 0 {
			return
		}
		deadline := time.Now().Add(10 * time.Second) // a heap may be trimming itself still
		for len(added()) > 0 && time.Now().Before(deadline) {
			_, _ = unix.Poll(nil, 1)
		}
		require.Empty(t, added(), "left behind")
	})
}
