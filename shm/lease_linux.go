package shm

import (
	"errors"
	"fmt"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// readLease takes a read lease on an O_RDONLY description and gives it back at
// once. The kernel grants it only if nobody has the file open for writing; a
// mapping keeps its description open, an unread message keeps the descriptors in
// it, and a forked child keeps its parent's, so all of these count.
func readLease(fd int) error {
	err := takeLease(fd, unix.F_RDLCK)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return ErrStillWritten
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNoProof, err)
	}
	if err := giveLeaseBack(fd); err != nil {
		return fmt.Errorf("%w: %w", ErrNoProof, err)
	}
	return nil
}

// writeLease takes a write lease on the host's description and gives it back at once. The kernel grants it only
// if no other description of the file is open at all, for reading or writing, by whomever. It does not
// notice who shares this very description: the host's own maps of it, and children that the host forked.
func writeLease(fd int) error {
	err := takeLease(fd, unix.F_WRLCK)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return errStillOpen
	case err != nil:
		return err
	}
	return giveLeaseBack(fd)
}

var errStillOpen = errors.New("another description of the file is open")

// takeLease also chooses the signal that the kernel sends when someone opens
// the file for writing while the lease is held. The default, SIGIO, would end the
// process; SIGURG is ignored by default, and the Go runtime uses it anyway. Giving
// a lease back resets the choice, so it is made each time.
func takeLease(fd, kind int) error {
	if err := setSignal(fd); err != nil {
		return err
	}
	if err := failpoint.Fail(failpoint.ShmSetLease); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, kind)
	return err
}

func setSignal(fd int) error {
	if err := failpoint.Fail(failpoint.ShmSetSignal); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETSIG, int(unix.SIGURG))
	return err
}

func giveLeaseBack(fd int) error {
	if err := failpoint.Fail(failpoint.ShmGiveLeaseBack); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err
}
