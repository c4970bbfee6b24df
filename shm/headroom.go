package shm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
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

type machine struct {
	root   string
	mounts []byte // of cgroups; they stay where they are while a process runs
}

func (m *machine) headroom() (headroom, error) {
	available, err := m.memAvailable()
	if err != nil {
		return headroom{}, &KernelError{Feature: "reading /proc/meminfo", Err: err,
			Advice: "mount /proc; without it nothing says how much memory is left"}
	}
	least := headroom{bytes: available, source: "MemAvailable"}
	for _, g := range m.cgroups() {
		g.lower(&least)
	}
	return least, nil
}

func (m *machine) memAvailable() (uint64, error) {
	text, err := readFile(m.path("/proc/meminfo"))
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

// readFile is os.ReadFile without its polling, which costs more than reading
// the small files of /proc and cgroups.
func readFile(name string) ([]byte, error) {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = syscall.Close(fd) }()
	text := make([]byte, 0, 4096)
	for {
		n, err := syscall.Read(fd, text[len(text):cap(text)])
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
