package pool

import (
	"errors"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// newEventfd makes a descriptor that is readable while it has been signalled and not been cleared.
func newEventfd() (int, error) {
	if err := failpoint.Fail(failpoint.PoolEventfd); err != nil {
		return -1, err
	}
	return unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
}

// signalEventfd makes it readable. EAGAIN would say that it is, more than is counted.
func signalEventfd(fd int) error {
	one := [8]byte{1}
	for {
		if err := writeEventfd(fd, one[:]); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func writeEventfd(fd int, b []byte) error {
	if err := failpoint.Fail(failpoint.PoolEventfdWrite); err != nil {
		return err
	}
	_, err := unix.Write(fd, b)
	return err
}

// clearEventfd makes it unreadable. If that fails, whoever waits for it wakes once more for nothing.
func clearEventfd(fd int) {
	var count [8]byte
	_ = readEventfd(fd, count[:])
}

func readEventfd(fd int, b []byte) error {
	if err := failpoint.Fail(failpoint.PoolEventfdRead); err != nil {
		return err
	}
	_, err := unix.Read(fd, b)
	return err
}
