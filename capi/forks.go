package main

// void shim_hold_forks(void);
// void shim_let_fork(void);
// unsigned long long shim_times_forked(void);
import "C"

import (
	"runtime"
	"sync"

	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// hostForks is a lock that the C library takes as well before this process forks (pthread_atfork, in shim.c).
type hostForks struct{}

// A mutex of the C library is unlocked by the thread that locked it.
func (hostForks) Lock() {
	runtime.LockOSThread()
	C.shim_hold_forks()
}

func (hostForks) Unlock() {
	C.shim_let_fork()
	runtime.UnlockOSThread()
}

// orderForks puts it in place, before the first process is started.
var orderForks = sync.OnceFunc(func() {
	pool.HostForks = hostForks{}
	shm.HostForks = func() uint64 { return uint64(C.shim_times_forked()) }
})
