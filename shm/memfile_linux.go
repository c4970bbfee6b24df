package shm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

const (
	sealSize        = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	sealFutureWrite = unix.F_SEAL_FUTURE_WRITE
	sealSeal        = unix.F_SEAL_SEAL
)

// newMemfd makes an empty anonymous file whose size can be sealed. The kernel is
// asked for one that can never be executed, since some systems allow no other;
// Linux before 6.3 does not know that flag.
func newMemfd() (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := memfdCreate(flags | unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = memfdCreate(flags)
	}
	return fd, err
}

func memfdCreate(flags int) (int, error) {
	if err := failpoint.Fail(failpoint.ShmMemfdCreate); err != nil {
		return -1, err
	}
	return unix.MemfdCreate("theus", flags)
}

// newTmpfile is for sandboxes that forbid memfd: a file without a name on a
// tmpfs. It cannot be sealed, so access rests on the descriptions alone.
func newTmpfile(dir string) (int, error) {
	if err := failpoint.Fail(failpoint.ShmOpenTmpfile); err != nil {
		return -1, err
	}
	return unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
}

// newMemory gives an empty memory file from the first of these that works. A memfd that could not be had
// just now is an error: the other file cannot be sealed, and nobody would notice.
func newMemory() (fd int, sealable bool, err error) {
	fd, err = newMemfd()
	if err == nil {
		return fd, true, nil
	}
	if limit := descriptorLimit(err); limit != nil {
		return -1, false, limit
	}
	if scarce(err) {
		return -1, false, &KernelError{Feature: "memfd_create", Err: err,
			Advice: "the kernel is short of memory for itself; let go of some and try again"}
	}
	fd, tmpErr := newTmpfile("/dev/shm")
	if tmpErr == nil {
		return fd, false, nil
	}
	if limit := descriptorLimit(tmpErr); limit != nil {
		return -1, false, limit
	}
	return -1, false, &KernelError{
		Feature: "memfd_create",
		Err:     fmt.Errorf("%w (and an unnamed file in /dev/shm: %w)", err, tmpErr),
		Advice:  "allow memfd_create in the sandbox's system call filter, or mount a tmpfs on /dev/shm",
	}
}

// reopen makes a new file description of the same file. What its holder may do
// depends on flags alone, whatever fd was opened with. It also matters that it
// is new: the description that memfd_create returns is not counted as a writer
// by the kernel, so a lease would not notice that it is still in use.
func reopen(fd, flags int) (int, error) {
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	for {
		got, err := openAgain(path, flags)
		switch {
		case err == nil:
			return got, nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		if limit := descriptorLimit(err); limit != nil {
			return -1, limit
		}
		return -1, &KernelError{
			Feature: "opening a segment again through /proc/self/fd",
			Err:     err,
			Advice:  "mount /proc; without it descriptors for readers and writers cannot be told apart",
		}
	}
}

func openAgain(path string, flags int) (int, error) {
	if err := failpoint.Fail(failpoint.ShmReopen); err != nil {
		return -1, err
	}
	return unix.Open(path, flags|unix.O_CLOEXEC, 0)
}

// seal forbids changes of the file for ever. Files that cannot be sealed
// (newTmpfile) are skipped by the caller.
func seal(fd, seals int) error {
	err := addSeals(fd, seals)
	if err == nil {
		return nil
	}
	return &KernelError{
		Feature: fmt.Sprintf("sealing a segment (F_ADD_SEALS 0x%x)", seals),
		Err:     err,
		Advice:  "theus needs Linux 5.4 or later and memfd seals",
	}
}

func addSeals(fd, seals int) error {
	if err := failpoint.Fail(failpoint.ShmAddSeals); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return err
}

// resize sets the size of a new file. Past RLIMIT_FSIZE the kernel does not just
// refuse: it sends SIGXFSZ, which ends a host that has no handler for it. So the
// limit is looked at first.
func resize(fd int, size int64) error {
	if limit, err := fileLimit(); err == nil && uint64(size) > limit {
		return &LimitError{What: "file size", Limit: limit, Errno: unix.EFBIG,
			Advice: "shared memory counts as a file here; raise it with `ulimit -f unlimited`"}
	}
	for {
		err := truncate(fd, size)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &KernelError{Feature: fmt.Sprintf("ftruncate to %d bytes", size), Err: err,
				Advice: "ask for less, or see the limits of the file system"}
		}
		return nil
	}
}

func fileLimit() (uint64, error) {
	if err := failpoint.Fail(failpoint.ShmGetFileLimit); err != nil {
		return 0, err
	}
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit)
	return limit.Cur, err
}

func truncate(fd int, size int64) error {
	if err := failpoint.Fail(failpoint.ShmFtruncate); err != nil {
		return err
	}
	return unix.Ftruncate(fd, size)
}

// fallocate gives a range of the file real pages.
func fallocate(fd int, offset, n int64) error {
	if err := failpoint.Fail(failpoint.ShmFallocate); err != nil {
		return err
	}
	return unix.Fallocate(fd, 0, offset, n)
}

// descriptorLimit tells that an open failed because there are too many; else nil.
func descriptorLimit(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) || (errno != unix.EMFILE && errno != unix.ENFILE) {
		return nil
	}
	limit := LimitError{What: "descriptors", Errno: errno,
		Advice: "hold fewer arrays at a time, or raise the limit with `ulimit -n`"}
	if errno == unix.ENFILE {
		limit.Advice = "the whole system is out of them (fs.file-max); close other programs"
	} else if n, err := maxDescriptors(); err == nil {
		limit.Limit = n
	}
	return &limit
}

func maxDescriptors() (uint64, error) {
	if err := failpoint.Fail(failpoint.ShmGetDescriptorLimit); err != nil {
		return 0, err
	}
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return limit.Cur, err
}

// maxMappings is how many mappings the kernel allows a process.
func maxMappings() int64 {
	text, err := ReadFile("/proc/sys/vm/max_map_count")
	if err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			return n
		}
	}
	return 65530 // the kernel's default
}
