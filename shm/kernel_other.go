//go:build !linux

package shm

import (
	"errors"
	"math"
)

// Elsewhere the package compiles, so that editors and vet can read it, and every
// segment is refused.

const (
	sealSize        = 0
	sealFutureWrite = 0
	sealSeal        = 0
)

var errNotLinux = &KernelError{Feature: "shared memory", Err: errors.ErrUnsupported,
	Advice: "theus needs Linux (on Windows: WSL2)"}

func probeKernel() (Features, error) { return Features{}, nil }

func newMemory() (fd int, sealable bool, err error) { return -1, false, errNotLinux }

func reopen(fd, flags int) (int, error) { return -1, errNotLinux }

func seal(fd, seals int) error { return errNotLinux }

func resize(fd int, size int64) error { return errNotLinux }

func fallocate(fd int, offset, n int64) error { return errNotLinux }

func readLease(fd int) error { return errNotLinux }

func writeLease(fd int) error { return errNotLinux }

func closeFD(fd int) {}

func descriptorLimit(err error) error { return nil }

func maxMappings() int64 { return math.MaxInt64 }

func mapShared(fd int, size int64, writable bool) (uintptr, error) { return 0, errNotLinux }

func mapPrivate(fd int, at uintptr, size int64) (uintptr, error) { return 0, errNotLinux }

func populateWrite(addr uintptr, n int64) error { return errNotLinux }

func moveAside(addr uintptr, size int64) (uintptr, error) { return 0, errNotLinux }

func unmap(addr uintptr, size int64) error { return errNotLinux }

func copyBytes(to, from uintptr, n int64) {}

func copyOut(to []byte, from uintptr) {}

func copyIn(to uintptr, from []byte) {}

func load64(addr uintptr) uint64 { return 0 }

func store64(addr uintptr, value uint64) {}

func mapAnonymous(size int64) (uintptr, error) { return 0, errNotLinux }

func readInto(to uintptr, fd int, n int64) error { return errNotLinux }
