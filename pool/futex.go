package pool

import (
	"errors"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// Waiting for a word of memory to change. Whoever changes it wakes the kernel's sleepers, and nobody else: through a channel of
// Go's a thread would first have to be found that runs the goroutine (see Task.Wait).

const (
	futexWait    = 0 | futexPrivate
	futexWake    = 1 | futexPrivate
	futexPrivate = 128 // only threads of this process wait
)

// awaitChange sleeps while the word is 0: for some time at most, or (negative) for as long as it takes. nil: look again.
func awaitChange(word *atomic.Uint32, timeout time.Duration) error {
	if err := failpoint.Fail(failpoint.PoolFutexWait); err != nil {
		return passing(err)
	}
	var limit *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(timeout.Nanoseconds())
		limit = &t
	}
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, 0, uintptr(unsafe.Pointer(limit)), 0, 0)
	return passing(errno)
}

// passing: that it was woken, has changed already, was interrupted or has waited long enough are no errors.
func passing(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR && errno != unix.ETIMEDOUT {
		return errno
	}
	return nil
}

// wakeAll wakes all who sleep on the word.
func wakeAll(word *atomic.Uint32) error {
	if err := failpoint.Fail(failpoint.PoolFutexWake); err != nil {
		return err
	}
	const all = 1<<31 - 1
	if _, _, errno := unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, all); errno != 0 {
		return errno
	}
	return nil
}
