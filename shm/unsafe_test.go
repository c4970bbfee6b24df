//go:build linux

package shm

import "unsafe"

// view shows mapped memory to a test. It must not be kept past the mapping.
func view(addr uintptr, n int64) []byte {
	return unsafe.Slice((*byte)(pointer(addr)), int(n))
}

// sigaction is the kernel's struct, as far as a test needs it: all zero, the default.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

func (s *sigaction) pointer() uintptr { return uintptr(unsafe.Pointer(s)) }
