package shm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/theus-project/theus-go/internal/failpoint"
)

// headroom is how many bytes can still be allocated, and what says so.
type headroom struct {
	bytes  uint64
	source string
}

// readHeadroom gives a function that reads the machine whose file system starts
// at root: the least of MemAvailable and of what each memory cgroup around this
// process has left.
func readHeadroom(root string) func() (headroom, error) {
	m := &machine{root: root}
	return m.headroom
}

// machine is read by one goroutine at a time.
type machine struct {
	root   string
	mounts []byte // of cgroups; they stay where they are while a process runs
	short  error  // what a file could not be read for, though it may be there
}

func (m *machine) headroom() (headroom, error) {
	m.short = nil
	available, err := m.memAvailable()
	if scarce(err) {
		return headroom{}, unreadable(err)
	}
	if err != nil {
		return headroom{}, &KernelError{Feature: "reading /proc/meminfo", Err: err,
			Advice: "mount /proc; without it nothing says how much memory is left"}
	}
	least := headroom{bytes: available, source: "MemAvailable"}
	for _, g := range m.cgroups() {
		g.lower(&least)
	}
	if m.short != nil {
		return headroom{}, unreadable(m.short)
	}
	return least, nil
}

// read gives a file that need not be there, nor be ours to read; then it gives nil. That
// a descriptor is lacking just now is something else: past a limit that was overlooked the kernel kills.
func (m *machine) read(name string) []byte {
	text, err := ReadFile(name)
	if scarce(err) {
		m.short = err
	}
	return text
}

func unreadable(err error) error {
	if limit := descriptorLimit(err); limit != nil {
		return limit
	}
	return &KernelError{Feature: "reading how much memory is left", Err: err,
		Advice: "the kernel is short of memory for itself; let go of some and try again"}
}

// scarce tells that the kernel was asked at a bad moment: the same question may have another answer later.
func scarce(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (m *machine) memAvailable() (uint64, error) {
	text, err := ReadFile(m.path("/proc/meminfo"))
	if err != nil {
		return 0, err
	}
	kib, ok := field(text, "MemAvailable:")
	if !ok {
		return 0, errors.New("it has no MemAvailable")
	}
	return kib << 10, nil
}

func (m *machine) path(p string) string { return filepath.Join(m.root, p) }

// field reads the number that follows a name at the start of a line.
func field(text []byte, name string) (uint64, bool) {
	for line := range bytes.Lines(text) {
		rest, found := bytes.CutPrefix(line, []byte(name))
		if !found || len(rest) == 0 || (rest[0] != ' ' && rest[0] != '\t') {
			continue
		}
		number, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
		n, err := strconv.ParseUint(string(number), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// ReadFile is os.ReadFile without its poller, which costs more than reading the small files of /proc and cgroups,
// and which, once it was used, keeps two descriptors of the host for ever.
func ReadFile(name string) ([]byte, error) {
	fd, err := openFile(name)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer closeFD(fd)
	text := make([]byte, 0, 4096)
	for {
		n, err := readSome(fd, text[len(text):cap(text)])
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return text, nil
		default:
			text = slices.Grow(text[:len(text)+n], 1024)
		}
	}
}

func openFile(name string) (int, error) {
	if err := failpoint.Fail(failpoint.ShmOpenFile); err != nil {
		return -1, err
	}
	return syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
}

func readSome(fd int, into []byte) (int, error) {
	if err := failpoint.Fail(failpoint.ShmReadFile); err != nil {
		return -1, err
	}
	return syscall.Read(fd, into)
}
