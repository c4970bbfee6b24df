//go:build linux

package shm

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// patience bounds every wait of the tests; a wait that reaches it is a failure.
const patience = 20 * time.Second

// TestMain runs the tests, or, started again by one of them, a child.
func TestMain(m *testing.M) {
	if name := os.Getenv("THEUS_SHM_CHILD"); name != "" {
		os.Exit(runChild(name))
	}
	flag.Parse()
	// A failure prints its seed; files of failures would only litter the tree.
	_ = flag.Set("rapid.nofailfile", "true")
	before := leftovers()
	code := m.Run()
	if code == 0 {
		if after := leftovers(); after != before {
			fmt.Fprintf(os.Stderr, "left behind by the tests:\n%s\nbefore them:\n%s\n", after, before)
			code = 1
		}
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// leftovers lists what a test must not leave: descriptors, mappings of memory
// files, and bytes in the books.
func leftovers() string {
	var b strings.Builder
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		// The Go runtime makes these two once, when something first waits, and keeps them.
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			fmt.Fprintf(&b, "descriptor %s: %s\n", e.Name(), target)
		}
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "memfd:") || strings.Contains(line, "/dev/shm") {
			b.WriteString(line)
		}
	}
	process.mu.Lock()
	defer process.mu.Unlock()
	fmt.Fprintf(&b, "%d mappings, %d bytes, %d pending, %d charges\n",
		mappings.count.Load(), process.inUse, process.pending, len(process.charges))
	return b.String()
}

// watch fails the test if it leaves something behind.
func watch(t *testing.T) {
	t.Helper()
	before := leftovers()
	t.Cleanup(func() { require.Equal(t, before, leftovers(), "left behind") })
}

// heapFor gives a heap for one test, which is watched.
func heapFor(t *testing.T) *Heap {
	t.Helper()
	return heapWith(t, HeapOptions{})
}

func heapWith(t *testing.T, o HeapOptions) *Heap {
	t.Helper()
	watch(t)
	h := NewHeap(o)
	t.Cleanup(h.Close)
	return h
}

// create makes a segment that goes when the test ends.
func create(t *testing.T, h *Heap, size int64) *Segment {
	t.Helper()
	s, err := h.Create(size, t.Name())
	require.NoError(t, err)
	t.Cleanup(s.Unref)
	return s
}

// grant is create for Grant; the caller closes writer.
func grant(t *testing.T, h *Heap, size int64) (s *Segment, writer int) {
	t.Helper()
	s, writer, _, err := h.Grant(size, t.Name())
	require.NoError(t, err)
	t.Cleanup(s.Unref)
	return s, writer
}

// process of a test: this binary again, running one function of children.
type childProcess struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start runs the child with descriptors fds as its 3, 4, …; they stay the caller's.
func start(t *testing.T, name string, fds ...int) *childProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	// The race detector otherwise makes each child's exit take a second.
	cmd.Env = append(os.Environ(), "THEUS_SHM_CHILD="+name, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	for _, fd := range fds {
		copied, err := dup(fd)
		require.NoError(t, err)
		file := os.NewFile(uintptr(copied), "inherited")
		defer func() { _ = file.Close() }()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &childProcess{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	// Whatever happens to the test, the child is not waited for for ever.
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		timer.Stop()
		_ = in.Close()
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return c
}

// hears waits for the child's next line.
func (c *childProcess) hears(want string) {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	require.NoError(c.t, err, "the child said %q", line)
	require.Equal(c.t, want, strings.TrimSuffix(line, "\n"))
}

// says gives the child a line.
func (c *childProcess) says(line string) {
	c.t.Helper()
	_, err := io.WriteString(c.in, line+"\n")
	require.NoError(c.t, err)
}

// ends lets the child go on to its end and gives what it still said.
func (c *childProcess) ends() (said string, err error) {
	_ = c.in.Close()
	rest, _ := io.ReadAll(c.out)
	return string(rest), c.cmd.Wait()
}
