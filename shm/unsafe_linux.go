package shm

import (
	"errors"
	"io"
	"sync/atomic"
	"unsafe"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// All of the package's pointer work is here. An address is kept as a number, so
// that the garbage collector never sees a pointer into memory that the kernel
// may later give to something else, and becomes a pointer only inside one of
// these functions. The race detector does not see mapped memory: whoever shares
// it needs an atomic (load64) or an order given by something else.

// pointer makes the number a pointer for the length of one call.
func pointer(addr uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr))
}

// mapShared maps the whole file, read-only or writable, and seen by all who map it.
func mapShared(fd int, size int64, writable bool) (uintptr, error) {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	return mapAt(failpoint.ShmMmapShared, fd, 0, size, prot, unix.MAP_SHARED)
}

// mapPrivate maps the whole file writable, at a place of the kernel's choice (at
// 0) or in place of whatever is at that address now. What is written there stays
// in this process. NORESERVE: hardly any page of it is ever written.
func mapPrivate(fd int, at uintptr, size int64) (uintptr, error) {
	flags := unix.MAP_PRIVATE | unix.MAP_NORESERVE
	if at != 0 {
		flags |= unix.MAP_FIXED
	}
	return mapAt(failpoint.ShmMmapPrivate, fd, at, size, unix.PROT_READ|unix.PROT_WRITE, flags)
}

func mapAt(point failpoint.Point, fd int, at uintptr, size int64, prot, flags int) (uintptr, error) {
	if err := failpoint.Fail(point); err != nil {
		return 0, err
	}
	p, err := unix.MmapPtr(fd, 0, pointer(at), uintptr(size), prot, flags)
	if err != nil {
		return 0, err
	}
	// With a large mapping a crash spends seconds on writing it to the core file.
	// That the advice fails is no reason to refuse the memory.
	_ = leaveOutOfCoreFiles(p, size)
	return uintptr(p), nil
}

func leaveOutOfCoreFiles(p unsafe.Pointer, size int64) error {
	if err := failpoint.Fail(failpoint.ShmMadvise); err != nil {
		return err
	}
	return unix.Madvise(unsafe.Slice((*byte)(p), int(size)), unix.MADV_DONTDUMP)
}

// populateWrite has the kernel enter writable pages in a part of a map, and make those that are not there yet. Linux 5.14.
func populateWrite(addr uintptr, n int64) error {
	if err := failpoint.Fail(failpoint.ShmPopulate); err != nil {
		return err
	}
	return unix.Madvise(unsafe.Slice((*byte)(pointer(addr)), int(n)), unix.MADV_POPULATE_WRITE)
}

// moveAside moves the pages of a map, with their page tables, to a new address.
// DONTUNMAP leaves an empty map of the same file where they were: without it
// another thread's mmap could take the gap before the caller fills it. Linux 5.13
// and later do this for shared maps; before it is EINVAL.
func moveAside(addr uintptr, size int64) (uintptr, error) {
	if err := failpoint.Fail(failpoint.ShmMremap); err != nil {
		return 0, err
	}
	p, err := unix.MremapPtr(pointer(addr), uintptr(size), pointer(placeLike(addr, size)), uintptr(size),
		unix.MREMAP_MAYMOVE|unix.MREMAP_DONTUNMAP)
	return uintptr(p), err
}

// pageTable is what one page of page tables covers where pages have 4 KiB.
const pageTable = 2 << 20

// farBelow is where a place is looked for: so far from what the kernel gives that it is free, on machines of 47 bits of addresses.
const farBelow = 1 << 40

// placeLike is a place for the pages of a map at the same distance from a multiple of pageTable as they have now: then the kernel
// moves whole pages of page tables (72 MB in 40 µs), and else entry by entry (in 300). It is a hint: where something is mapped already
// the kernel chooses another. 0: the map is small, or there is no room to choose.
func placeLike(addr uintptr, size int64) uintptr {
	if size < 2*pageTable || addr < 2*farBelow {
		return 0
	}
	return addr - farBelow
}

func unmap(addr uintptr, size int64) error {
	err := unix.MunmapPtr(pointer(addr), uintptr(size))
	if refused := failpoint.Fail(failpoint.ShmMunmap); refused != nil {
		return refused
	}
	return err
}

// copyBytes copies n bytes between two maps.
func copyBytes(to, from uintptr, n int64) {
	copy(unsafe.Slice((*byte)(pointer(to)), int(n)), unsafe.Slice((*byte)(pointer(from)), int(n)))
}

// clearBytes writes zeros.
func clearBytes(addr uintptr, n int64) {
	clear(unsafe.Slice((*byte)(pointer(addr)), int(n)))
}

// copyOut copies from a map into memory of Go's.
func copyOut(to []byte, from uintptr) {
	copy(to, unsafe.Slice((*byte)(pointer(from)), len(to)))
}

// copyIn copies from memory of Go's into a map.
func copyIn(to uintptr, from []byte) {
	copy(unsafe.Slice((*byte)(pointer(to)), len(from)), from)
}

// load64 reads an aligned word that another process stores.
func load64(addr uintptr) uint64 {
	return atomic.LoadUint64((*uint64)(pointer(addr)))
}

// store64 writes an aligned word that another process reads: after all that was written before it, and before anything that is
// read after it.
func store64(addr uintptr, value uint64) {
	atomic.StoreUint64((*uint64)(pointer(addr)), value)
}

// mapAnonymous gives zeroed memory of this process, and of children that the host forks: they write into what is being
// built, as they do into a large array.
func mapAnonymous(size int64) (uintptr, error) {
	return mapAt(failpoint.ShmMmapAnonymous, -1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
}

// readInto reads the first n bytes of a file to an address.
func readInto(to uintptr, fd int, n int64) error {
	for done := int64(0); done < n; {
		got, err := pread(fd, to+uintptr(done), n-done, done)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return &KernelError{Feature: "reading a segment", Err: err, Advice: "check the sandbox"}
		case got == 0:
			return io.ErrUnexpectedEOF
		default:
			done += int64(got)
		}
	}
	return nil
}

func pread(fd int, to uintptr, n, from int64) (int, error) {
	if err := failpoint.Fail(failpoint.ShmPread); err != nil {
		return 0, err
	}
	return unix.Pread(fd, unsafe.Slice((*byte)(pointer(to)), int(n)), from)
}
