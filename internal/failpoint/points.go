// Package failpoint lets tests fail any system call that the library makes.
//
// Each call has a [Point], and asks [Fail] before it asks the kernel:
//
//	if err := failpoint.Fail(failpoint.ShmFtruncate); err != nil {
//		return err
//	}
//	return unix.Ftruncate(fd, size)
//
// In a release Fail gives nil and is inlined, so nothing of this is left. With the build tag
// failpoints, tests arm a point ([Arm]) and count how often each was passed ([Hits]).
//
// A call whose effect cannot be taken back (close, munmap, wait) is made all the same, and then said to
// have failed: the kernel too has closed a descriptor when close gives EINTR.
//
// sites_test.go refuses a system call without a point, and a point without a system call.
package failpoint

// Point is one place where the kernel may say no.
type Point int

// The points, named after their package and what they ask of the kernel.
const (
	ShmMemfdCreate Point = iota
	ShmOpenTmpfile
	ShmReopen
	ShmAddSeals
	ShmGetFileLimit
	ShmGetDescriptorLimit
	ShmFtruncate
	ShmFallocate
	ShmMmapShared
	ShmMmapPrivate
	ShmMmapAnonymous
	ShmMadvise
	ShmPopulate
	ShmMremap
	ShmMunmap
	ShmClose
	ShmPread
	ShmSetSignal
	ShmSetLease
	ShmGiveLeaseBack
	ShmOpenFile
	ShmReadFile

	PoolSocketpair
	PoolSendmsg
	PoolShutdown
	PoolRecvmsg
	PoolDescriptors // that came with a message: lost, as with MSG_CTRUNC
	PoolClose
	PoolDuplicate
	PoolEpollCreate
	PoolEpollControl
	PoolEpollWait
	PoolEventfd
	PoolEventfdWrite
	PoolEventfdRead
	PoolFutexWait
	PoolFutexWake
	PoolYield
	PoolPidfdSignal
	PoolPoll
	PoolWait
	PoolOpenNull
	PoolGetDescriptorFlags
	PoolStartProcess
	PoolKillProcess
	PoolWaitProcess
	PoolReadFile

	EngineStat
	EngineStartProcess
	EngineWaitProcess

	count
)

var names = [count]string{
	ShmMemfdCreate:        "shm: memfd_create",
	ShmOpenTmpfile:        "shm: open O_TMPFILE",
	ShmReopen:             "shm: open /proc/self/fd/N",
	ShmAddSeals:           "shm: fcntl F_ADD_SEALS",
	ShmGetFileLimit:       "shm: getrlimit FSIZE",
	ShmGetDescriptorLimit: "shm: getrlimit NOFILE",
	ShmFtruncate:          "shm: ftruncate",
	ShmFallocate:          "shm: fallocate",
	ShmMmapShared:         "shm: mmap shared",
	ShmMmapPrivate:        "shm: mmap private",
	ShmMmapAnonymous:      "shm: mmap anonymous",
	ShmPread:              "shm: pread",
	ShmMadvise:            "shm: madvise",
	ShmPopulate:           "shm: madvise POPULATE_WRITE",
	ShmMremap:             "shm: mremap",
	ShmMunmap:             "shm: munmap",
	ShmClose:              "shm: close",
	ShmSetSignal:          "shm: fcntl F_SETSIG",
	ShmSetLease:           "shm: fcntl F_SETLEASE",
	ShmGiveLeaseBack:      "shm: fcntl F_SETLEASE F_UNLCK",
	ShmOpenFile:           "shm: open of /proc and cgroups",
	ShmReadFile:           "shm: read of /proc and cgroups",

	PoolSocketpair:         "pool: socketpair",
	PoolSendmsg:            "pool: sendmsg",
	PoolShutdown:           "pool: shutdown",
	PoolRecvmsg:            "pool: recvmsg",
	PoolDescriptors:        "pool: recvmsg MSG_CTRUNC",
	PoolClose:              "pool: close",
	PoolDuplicate:          "pool: fcntl F_DUPFD",
	PoolEpollCreate:        "pool: epoll_create",
	PoolEpollControl:       "pool: epoll_ctl",
	PoolEpollWait:          "pool: epoll_wait",
	PoolEventfd:            "pool: eventfd",
	PoolEventfdWrite:       "pool: write eventfd",
	PoolEventfdRead:        "pool: read eventfd",
	PoolFutexWait:          "pool: futex FUTEX_WAIT",
	PoolFutexWake:          "pool: futex FUTEX_WAKE",
	PoolYield:              "pool: sched_yield",
	PoolPidfdSignal:        "pool: pidfd_send_signal",
	PoolPoll:               "pool: poll",
	PoolWait:               "pool: wait4",
	PoolOpenNull:           "pool: open /dev/null",
	PoolGetDescriptorFlags: "pool: fcntl F_GETFD",
	PoolStartProcess:       "pool: fork and exec",
	PoolKillProcess:        "pool: kill",
	PoolWaitProcess:        "pool: waitid",
	PoolReadFile:           "pool: read of /proc",

	EngineStat:         "engine: stat",
	EngineStartProcess: "engine: fork and exec",
	EngineWaitProcess:  "engine: waitid",
}

// String gives the point's package and what it asks of the kernel.
func (p Point) String() string { return names[p] }
