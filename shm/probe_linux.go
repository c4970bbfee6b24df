package shm

import (
	"errors"
	"os"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// probeKernel gives an error when there can be no memory files, or something was lacking that says nothing about the kernel.
func probeKernel() (f Features, err error) {
	var a asking
	size := int64(os.Getpagesize())
	plain, err := memfdCreate(unix.MFD_CLOEXEC | unix.MFD_NOEXEC_SEAL)
	if f.NoexecSeal = a.yes(err); f.NoexecSeal {
		closeFD(plain)
	}
	fd, sealable, err := newMemory()
	if err != nil { // and so will every segment
		return f, err
	}
	defer closeFD(fd)
	f.Memfd = sealable
	if err := resize(fd, size); err != nil {
		return f, err
	}
	f.Fallocate = a.yes(allocatePages(fallocate, fd, size, nil, func(int64) {}))
	f.DontUnmapMove = a.move(fd, size)
	f.Populate = a.populate(fd, size)
	f.FutureWrite = sealable && a.futureWrite(fd, size)
	f.Leases = a.leases(fd)
	f.WriteLeases = a.writeLeases(fd, size)
	return f, a.short
}

// asking is a series of questions to the kernel.
type asking struct{ short error } // what was lacking to ask one of them

func (a *asking) yes(err error) bool {
	switch {
	case !scarce(err) || a.short != nil:
	case descriptorLimit(err) != nil:
		a.short = descriptorLimit(err)
	default:
		a.short = &KernelError{Feature: "asking the kernel for its features", Err: err,
			Advice: "it is short of memory for itself; let go of some and try again"}
	}
	return err == nil
}

func (a *asking) populate(fd int, size int64) bool {
	m, err := makeMap(size, func() (uintptr, error) { return mapShared(fd, size, true) })
	if !a.yes(err) {
		return false
	}
	defer m.close()
	return a.yes(populateWrite(m.addr, size))
}

func (a *asking) move(fd int, size int64) bool {
	old, err := makeMap(size, func() (uintptr, error) { return mapShared(fd, size, true) })
	if !a.yes(err) {
		return false
	}
	defer old.close()
	moved, err := makeMap(size, func() (uintptr, error) { return moveAside(old.addr, size) })
	if !a.yes(err) {
		return false
	}
	moved.close()
	return true
}

// futureWrite believes the seal only if it has its effect.
func (a *asking) futureWrite(fd int, size int64) bool {
	if !a.yes(seal(fd, sealFutureWrite)) {
		return false
	}
	m, err := makeMap(size, func() (uintptr, error) { return mapShared(fd, size, true) })
	m.close()
	a.yes(err)
	return errors.Is(err, unix.EPERM)
}

// leases believes in leases only if one is refused while there is a writer
// and granted when it is gone: a sandbox that says yes to everything proves nothing.
func (a *asking) leases(fd int) bool {
	reader, err := reopen(fd, unix.O_RDONLY)
	if !a.yes(err) {
		return false
	}
	defer closeFD(reader)
	writer, err := reopen(fd, unix.O_RDWR)
	if !a.yes(err) {
		return false
	}
	refused := readLease(reader)
	a.yes(refused)
	closeFD(writer)
	return errors.Is(refused, ErrStillWritten) && a.yes(readLease(reader))
}

// writeLeases believes in them only if one is refused while there is a reader's descriptor, then its map alone,
// and granted when that is gone. The lease is taken on a new description, as a segment's is.
func (a *asking) writeLeases(first int, size int64) bool {
	fd, err := reopen(first, unix.O_RDWR)
	if !a.yes(err) {
		return false
	}
	defer closeFD(fd)
	reader, err := reopen(fd, unix.O_RDONLY)
	if !a.yes(err) {
		return false
	}
	open := writeLease(fd)
	a.yes(open)
	m, err := makeMap(size, func() (uintptr, error) { return mapShared(reader, size, false) })
	closeFD(reader)
	if !a.yes(err) {
		return false
	}
	mapped := writeLease(fd)
	a.yes(mapped)
	m.close()
	return errors.Is(open, errStillOpen) && errors.Is(mapped, errStillOpen) && a.yes(writeLease(fd))
}

// closeFD closes a descriptor that is surely open. EINTR too means closed on Linux.
func closeFD(fd int) {
	err := unix.Close(fd)
	if said := failpoint.Fail(failpoint.ShmClose); said != nil {
		err = said
	}
	if errors.Is(err, unix.EBADF) {
		panic("shm: closed a descriptor twice")
	}
}
