package shm

import (
	"errors"
	"syscall"
)

// A huge fallocate blocks for the better part of a second, cannot be cancelled,
// and on older kernels starts from nothing when a signal interrupts it. Hence pieces.
const (
	largestPiece  = 16 << 20
	smallestPiece = 64 << 10
)

// allocator is fallocate, or a test's idea of it.
type allocator func(fd int, offset, n int64) error

// allocatePages fills the file with real pages, piece by piece. Between pieces
// it asks cancel (may be nil) whether to go on, and after each it reports to done.
// An interrupted piece is tried again at half the size, since the kernel throws
// away what it had of it: with frequent signals a large one would never end.
func allocatePages(allocate allocator, fd int, size int64, cancel func() error, done func(int64)) error {
	piece := int64(largestPiece)
	for offset := int64(0); offset < size; {
		if cancel != nil {
			if err := cancel(); err != nil {
				return err
			}
		}
		n := min(piece, size-offset)
		err := allocate(fd, offset, n)
		switch {
		case errors.Is(err, syscall.EINTR):
			piece = max(n/2, smallestPiece)
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return &KernelError{Feature: "fallocate on shared memory", Err: err,
				Advice: "theus needs memory that is there when it is used; use a kernel or sandbox with fallocate"}
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.ENOMEM):
			return err // the caller knows whose memory it is
		case err != nil:
			return &KernelError{Feature: "fallocate on shared memory", Err: err, Advice: "check the sandbox and the limits of the process"}
		}
		offset += n
		piece = min(piece*2, largestPiece)
		done(n)
	}
	return nil
}
