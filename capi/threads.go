package main

// int shim_threads_left(int wanted);
import "C"

import (
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
	"weak"

	"github.com/theus-project/theus-go/engine"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// The Go runtime ends the process when the system refuses it a thread, at whatever moment it wants one: when a call waits in
// the kernel while others can run. It keeps the threads that it has made. So as many as it can ever need are made
// when an engine is opened, after they were tried for in a way that fails as an error.

// mostProcessors bounds how many threads of Go run at once: workers compute, the library only hands out what they need.
const mostProcessors = 8

// One more than there are processors: a thread that has gone from Go to the kernel, or back to Python, keeps its place for a while,
// and where all places are taken the runtime looks for such ones every 20 µs (with a thousand calls under way that took 4 µs of each).
func init() { runtime.GOMAXPROCS(min(pool.Processors+1, mostProcessors)) }

// Threads of Go that may wait in the kernel at once, beside those that run. Calls of the host wait on the host's own.
const (
	waitingOfProcess = pool.MostAllocations + 4 // what starts processes, what releases; two for what is short
	waitingOfEngine  = 4                        // for messages, for the zygote's end; two for timers
)

var reserved struct {
	sync.Mutex
	threads int                           // that Go has for sure
	opening int                           // engines that are being opened
	engines []weak.Pointer[engine.Engine] // those that were
}

// openWithThreads opens an engine once Go has the threads that one more may need. *shm.LimitError.
func openWithThreads(o engine.Options) (e *engine.Engine, err error) {
	makePoller()
	if err := reserveThreads(); err != nil {
		return nil, err
	}
	defer func() {
		reserved.Lock()
		defer reserved.Unlock()
		reserved.opening--
		if e != nil {
			reserved.engines = append(reserved.engines, weak.Make(e))
		}
	}()
	return engine.Open(o)
}

// makePoller has Go make its poller, as the first timer does. The runtime ends the process when it is refused the two descriptors;
// that there are two was tried for (shim.c).
func makePoller() {
	guard.AfterFunc(time.Hour, "poller", func(*guard.Panic) {}, func() {}).Stop()
}

// reserveThreads has Go make the threads, and counts the engine as being opened.
func reserveThreads() error {
	reserved.Lock()
	defer reserved.Unlock()
	reserved.engines = slices.DeleteFunc(reserved.engines, func(p weak.Pointer[engine.Engine]) bool {
		e := p.Value()
		return e == nil || e.Closed()
	})
	engines := len(reserved.engines) + reserved.opening + 1
	wanted := runtime.GOMAXPROCS(0) + waitingOfProcess + shm.MostPopulating + waitingOfEngine*engines
	if wanted > reserved.threads {
		// For all of them: those that Go has already may be waiting for the engines that are open.
		if left := int(C.shim_threads_left(C.int(wanted))); left < wanted {
			return &shm.LimitError{What: "threads", Limit: 0, Errno: syscall.EAGAIN, Advice: "raise what is used up of " +
				"ulimit -u, pids.max of the control group (docker --pids-limit) and ulimit -v, or end other processes"}
		}
		occupyThreads(wanted)
		reserved.threads = wanted
	}
	reserved.opening++
	return nil
}

// occupyThreads occupies as many threads at once, so that there are as many.
func occupyThreads(count int) {
	var arrived, left sync.WaitGroup
	all := make(chan struct{})
	arrived.Add(count)
	left.Add(count)
	for range count {
		guard.Go("a thread", func(*guard.Panic) {}, func() {
			runtime.LockOSThread() // it is no other goroutine's as long as this one waits
			arrived.Done()
			<-all
			runtime.UnlockOSThread()
			left.Done()
		})
	}
	arrived.Wait()
	close(all)
	left.Wait()
}
