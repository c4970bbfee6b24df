package shm

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func probeKernel() Features {
	var f Features
	size := int64(os.Getpagesize())
	if fd, err := unix.MemfdCreate("theus", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL); err == nil {
		f.NoexecSeal = true
		closeFD(fd)
	}
	fd, sealable, err := newMemory()
	if err != nil {
		return f
	}
	defer closeFD(fd)
	f.Memfd = sealable
	if resize(fd, size) != nil {
		return f
	}
	f.Fallocate = fallocate(fd, 0, size) == nil
	f.DontUnmapMove = probeMove(fd, size)
	f.FutureWrite = sealable && probeFutureWrite(fd, size)
	f.Leases = probeLeases(fd)
	return f
}

func probeMove(fd int, size int64) bool {
	old, err := makeMap(size, func() (uintptr, error) { return mapShared(fd, size, true) })
	if err != nil {
		return false
	}
	defer old.close()
	moved, err := makeMap(size, func() (uintptr, error) { return moveAside(old.addr, size) })
	if err != nil {
		return false
	}
	moved.close()
	return true
}

// probeFutureWrite believes the seal only if it has its effect.
func probeFutureWrite(fd int, size int64) bool {
	if seal(fd, sealFutureWrite) != nil {
		return false
	}
	m, err := makeMap(size, func() (uintptr, error) { return mapShared(fd, size, true) })
	m.close()
	return errors.Is(err, unix.EPERM)
}

// probeLeases believes in leases only if one is refused while there is a writer
// and granted when it is gone: a sandbox that says yes to everything proves nothing.
func probeLeases(fd int) bool {
	reader, err := reopen(fd, unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer closeFD(reader)
	writer, err := reopen(fd, unix.O_RDWR)
	if err != nil {
		return false
	}
	refused := errors.Is(readLease(reader), ErrStillWritten)
	closeFD(writer)
	return refused && readLease(reader) == nil
}

// closeFD closes a descriptor that is surely open. EINTR too means closed on Linux.
func closeFD(fd int) {
	if err := unix.Close(fd); errors.Is(err, unix.EBADF) {
		panic("shm: closed a descriptor twice")
	}
}
