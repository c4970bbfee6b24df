package pool

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The twin, started by the thread itself, shows that the kernel sends the signal of a thread's death.
func TestAChildOutlivesTheThreadThatAskedForIt(t *testing.T) {
	ours, twin := startFromAThreadThatEnds(t)
	require.Equal(t, syscall.SIGKILL, waitFor(t, twin).Signal())
	require.False(t, endsWithin(t, ours, 200*time.Millisecond))
	require.NoError(t, ours.Kill())
	waitFor(t, ours)
}

func startFromAThreadThatEnds(t *testing.T) (ours, twin *os.Process) {
	t.Helper()
	done := make(chan int)
	inANewThread(func() {
		var err error
		ours, err = startProcess("/bin/sleep", []string{"sleep", "1000"}, nil, anySocket(t))
		if err == nil {
			twin, err = os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
		}
		if err != nil {
			t.Error(err)
		}
		done <- unix.Gettid()
	})
	thread := filepath.Join("/proc/self/task", strconv.Itoa(<-done))
	require.False(t, t.Failed())
	eventually(t, "the thread is gone", func() bool {
		_, err := os.Stat(thread)
		return err != nil
	})
	return ours, twin
}

// inANewThread runs f in a thread that ends with it: a goroutine that stays locked takes its thread along. The first thread of a
// process never ends; who happens to run there occupies it and goes elsewhere.
func inANewThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			elsewhere := make(chan struct{})
			inANewThread(func() {
				close(elsewhere)
				f()
			})
			<-elsewhere
			return
		}
		f()
	}()
}

func TestABugWhileAProcessIsStartedCostsThatStart(t *testing.T) {
	broken := spawnRequest{path: "/bin/true", reply: make(chan spawnReply, 1)} // without attributes: a nil pointer
	spawner() <- broken
	require.ErrorContains(t, (<-broken.reply).err, "internal error in starting a process")
	process, err := startProcess("/bin/true", []string{"true"}, nil, anySocket(t))
	require.NoError(t, err)
	require.True(t, waitFor(t, process).Exited())
}

// anySocket gives a descriptor to hand on.
func anySocket(t *testing.T) int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Close(fds[1]))
	return fds[0]
}

func waitFor(t *testing.T, p *os.Process) syscall.WaitStatus {
	t.Helper()
	state, err := p.Wait()
	require.NoError(t, err)
	return state.Sys().(syscall.WaitStatus)
}

func endsWithin(t *testing.T, p *os.Process, patience time.Duration) bool {
	t.Helper()
	pidfd, err := unix.PidfdOpen(p.Pid, 0)
	require.NoError(t, err)
	defer unix.Close(pidfd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	return err == nil && n > 0
}
