package pool

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/internal/guard"
	"golang.org/x/sys/unix"
)

// The kernel sends a child's PR_SET_PDEATHSIG when the *thread* that started it ends, not the process. Go's threads
// come and go; so one goroutine locks its thread, starts all children of all pools and never returns.
type spawnRequest struct {
	path  string
	args  []string
	attr  *os.ProcAttr
	reply chan spawnReply
}

type spawnReply struct {
	process *os.Process
	err     error
}

// HostForks is held while a child is being started, and by the C library whenever the host forks (capi/forks.go). Go waits for the
// end of a pipe to learn whether exec succeeded; a process that the host forks in that moment, a worker of
// multiprocessing say, would inherit the pipe and hold it open for as long as it lives, and the start would hang.
var HostForks sync.Locker = &sync.Mutex{}

var spawner = sync.OnceValue(func() chan<- spawnRequest {
	requests := make(chan spawnRequest)
	guard.Go("spawner", func(*guard.Panic) {}, func() {
		runtime.LockOSThread()
		for r := range requests {
			r.reply <- r.start()
		}
	})
	return requests
})

// start starts the child. A bug costs this start: the goroutine goes on, since the end of its thread would be the end
// of all children, and lets the host fork again.
func (r *spawnRequest) start() (reply spawnReply) {
	HostForks.Lock()
	defer HostForks.Unlock()
	if p := guard.Catch("starting a process", func() { reply.process, reply.err = forkAndExec(r) }); p != nil {
		reply.err = p
	}
	return reply
}

// startProcess starts a child that dies with this process: stdin is /dev/null, stdout and stderr are ours, descriptor 3 is
// extra. It leads a process group of its own, so a terminal's Ctrl-C does not reach it.
func startProcess(path string, args, env []string, extra int) (*os.Process, error) {
	third := os.NewFile(uintptr(extra), "socket")
	defer third.Close()
	null, err := openNull()
	if err != nil {
		return nil, err
	}
	defer null.Close()
	request := spawnRequest{
		path: path,
		args: args,
		attr: &os.ProcAttr{
			Env:   env,
			Files: []*os.File{null, orNull(os.Stdout, 1, null), orNull(os.Stderr, 2, null), third},
			Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
		},
		reply: make(chan spawnReply, 1),
	}
	spawner() <- request
	reply := <-request.reply
	return reply.process, reply.err
}

func forkAndExec(r *spawnRequest) (*os.Process, error) {
	if err := failpoint.Fail(failpoint.PoolStartProcess); err != nil {
		return nil, err
	}
	return os.StartProcess(r.path, r.args, r.attr)
}

func openNull() (*os.File, error) {
	if err := failpoint.Fail(failpoint.PoolOpenNull); err != nil {
		return nil, err
	}
	return os.OpenFile(os.DevNull, os.O_RDWR, 0)
}

// orNull is f, or /dev/null when the host has closed that descriptor.
func orNull(f *os.File, fd int, null *os.File) *os.File {
	if !isOpen(fd) {
		return null
	}
	return f
}

func isOpen(fd int) bool {
	if failpoint.Fail(failpoint.PoolGetDescriptorFlags) != nil {
		return false
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}
