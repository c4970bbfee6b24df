//go:build linux

package shm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// children are what other processes do in the tests. Each gets its descriptors
// from 3 on, says lines on stdout and hears lines, or EOF, on stdin.
var children = map[string]func(hear func() bool){
	"writer":         childWriter,
	"holder":         childHolder,
	"reader":         childReader,
	"reads on":       childReadsOn,
	"page":           childPage,
	"limits":         childLimits,
	"lease":          func(func() bool) { childLease(func(fd int) error { return takeLease(fd, unix.F_RDLCK) }) },
	"lease by SIGIO": func(func() bool) { childLease(takePlainLease) },
	"cgroup":         childCgroup,
	"cgroup blind":   childCgroupBlind,
}

func runChild(name string) int {
	lines := bufio.NewScanner(os.Stdin)
	children[name](lines.Scan)
	return 0
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3) }

func sizeOf(fd int) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		panic(err)
	}
	return st.Size
}

// childWriter maps descriptor 3 writable, closes it, and adds one to every byte for
// each line that it hears. Its map goes with it.
func childWriter(hear func() bool) {
	size := sizeOf(3)
	addr := must(mapShared(3, size, true))
	closeFD(3)
	fmt.Println("mapped")
	for hear() {
		for i, b := range view(addr, size) {
			view(addr, size)[i] = b + 1
		}
		fmt.Println("written")
	}
}

// childHolder holds its descriptors, does nothing with them, and ends.
func childHolder(hear func() bool) {
	fmt.Println("holding")
	hear()
}

// childReader tries to do to descriptor 3, which is a reader's, what a reader must
// not be able to do, and tells what came of each.
func childReader(hear func() bool) {
	size := sizeOf(3)
	addr := must(mapShared(3, size, false))
	fmt.Println("first byte", view(addr, size)[0])
	_, err := mapShared(3, size, true)
	fmt.Println("writable map:", err)
	fmt.Println("mprotect:", unix.Mprotect(view(addr, size), unix.PROT_READ|unix.PROT_WRITE))
	_, err = unix.Pwrite(3, []byte{1}, 0)
	fmt.Println("write:", err)
	fmt.Println("truncate:", unix.Ftruncate(3, 0))
	again := must(reopen(3, unix.O_RDWR)) // it is the same user's file
	_, err = mapShared(again, size, true)
	fmt.Println("writable map of the file opened again:", err)
	_, err = unix.Pwrite(again, []byte{1}, 0)
	fmt.Println("write to the file opened again:", err)
	fmt.Println("truncate of the file opened again:", unix.Ftruncate(again, 0))
	private := must(mapPrivate(3, 0, size))
	view(private, size)[0]++
	fmt.Println("private map:", view(private, size)[0], "shared:", view(addr, size)[0])
	hear()
	fmt.Println("first byte", view(addr, size)[0])
}

// childPage counts in a status page.
func childPage(func() bool) {
	addr := must(mapShared(3, PageSize, true))
	for n := uint64(1); n <= 100_000; n++ {
		atomic.StoreUint64((*uint64)(pointer(addr+wordOffset)), n<<32|n)
	}
	fmt.Println("done")
}

// childReadsOn maps descriptor 3 and tells, for each line that it hears, what its first byte is and that all of the first
// 10,000 are.
func childReadsOn(hear func() bool) {
	size := sizeOf(3)
	addr := must(mapShared(3, size, false))
	closeFD(3)
	fmt.Println("mapped")
	for hear() {
		seen := view(addr, 10_000)
		if bytes.Count(seen, seen[:1]) != len(seen) {
			panic("bytes have changed")
		}
		fmt.Println(seen[0])
	}
}

// childLimits runs into limits that hold for a whole process.
func childLimits(func() bool) {
	h := NewHeap(HeapOptions{})
	limit := func(resource int, n uint64) {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: unix.RLIM_INFINITY}); err != nil {
			panic(err)
		}
	}
	limit(unix.RLIMIT_FSIZE, 1<<20)
	_, err := h.Create(2<<20, "past the file size limit")
	fmt.Println(err)
	if limit := (*LimitError)(nil); !errors.As(err, &limit) {
		panic("not a LimitError")
	}
	must(h.Create(1<<20, "just so")).Unref()

	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		panic(err)
	}
	var taken []int
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 32, Max: files.Max}); err != nil {
		panic(err)
	}
	for {
		fd, err := dup(0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	for room := range 2 {
		_, err = h.Create(1, "no descriptors")
		fmt.Println(room, "free:", err)
		closeFD(taken[room])
	}
	s := must(h.Create(1, "enough descriptors"))
	if err := s.Freeze(); err != nil {
		panic(err)
	}
	s.Unref()
	h.Close()
	fmt.Println(h.Stats().InUse, "bytes left,", mappings.count.Load(), "mappings")
}

// childLease holds a lease on descriptor 3 while its file is opened for writing.
// SIGIO has its default action here, as in a host that is not a Go program.
func childLease(take func(fd int) error) {
	var byDefault sigaction
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGIO), byDefault.pointer(), 0, 8, 0, 0); errno != 0 {
		panic(errno)
	}
	for range 100 {
		if err := take(3); err != nil {
			panic(err)
		}
		// This breaks the lease, so the kernel sends the signal before it returns.
		_, err := unix.Open("/proc/self/fd/3", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			panic(fmt.Sprint("the lease did not hold: ", err))
		}
		if err := giveLeaseBack(3); err != nil {
			panic(err)
		}
	}
	fmt.Println("survived")
}

// takePlainLease takes a read lease the choice of a signal.
func takePlainLease(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	return err
}
