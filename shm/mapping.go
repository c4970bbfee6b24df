package shm

import (
	"errors"
	"sync/atomic"
	"syscall"
)

// mapping is one map of a segment or page in this process. The zero value maps nothing.
type mapping struct {
	addr uintptr
	size int64
}

// mapLimit counts the package's mappings. The kernel allows a process some
// 65,530 in all, and the Go runtime aborts the host when it cannot have one, so
// theus takes at most a quarter.
type mapLimit struct {
	count atomic.Int64
	most  int64
}

var mappings = &mapLimit{most: maxMappings() / 4}

// reserve counts one more mapping, unless there are too many.
func (l *mapLimit) reserve() error {
	if n := l.count.Add(1); n > l.most {
		l.count.Add(-1)
		return &LimitError{What: "mappings", Limit: uint64(l.most), Errno: syscall.ENOMEM,
			Advice: "hold fewer arrays at a time, put small ones together, or raise vm.max_map_count (theus takes a quarter of it)"}
	}
	return nil
}

func (l *mapLimit) release() {
	if l.count.Add(-1) < 0 {
		panic("shm: more mappings given back than taken")
	}
}

// makeMap counts a mapping and makes it.
func makeMap(size int64, create func() (uintptr, error)) (mapping, error) {
	if err := mappings.reserve(); err != nil {
		return mapping{}, err
	}
	addr, err := create()
	if err != nil {
		mappings.release()
		return mapping{}, mapError(err)
	}
	return mapping{addr: addr, size: size}, nil
}

// mapError tells a refused map as what it is.
func mapError(err error) error {
	if errors.Is(err, syscall.ENOMEM) {
		return &LimitError{What: "address space", Errno: syscall.ENOMEM,
			Advice: "see `ulimit -v`, vm.max_map_count and vm.overcommit_memory"}
	}
	return &KernelError{Feature: "mapping a segment", Err: err, Advice: "theus needs shared memory maps; check the sandbox"}
}

// close unmaps. A range that the package has mapped itself can always be
// unmapped, so a refusal means that its books are wrong.
func (m *mapping) close() {
	if m.addr == 0 {
		return
	}
	was := *m
	*m = mapping{} // also after a refusal: who closes it again finds nothing
	if err := unmap(was.addr, was.size); err != nil {
		panic("shm: unmap: " + err.Error())
	}
	mappings.release()
}
