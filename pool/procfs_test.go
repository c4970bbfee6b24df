package pool

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestTheStateOfAProcessIsSeen(t *testing.T) {
	require.False(t, exiting(os.Getpid()))
	require.False(t, stopped(os.Getpid()))

	sleeper := exec.Command("sleep", "1000")
	require.NoError(t, sleeper.Start())
	pid := sleeper.Process.Pid
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	eventually(t, "it is stopped", func() bool { return stopped(pid) })
	require.False(t, exiting(pid))

	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	eventually(t, "it is a zombie", func() bool { return isZombie(pid) })
	require.True(t, exiting(pid))
	require.False(t, stopped(pid))
	require.Error(t, sleeper.Wait())
	require.True(t, exiting(pid), "it is gone")
}

// The kernel's order on which worker.lost relies: who sees the end of a dead process's stream sees that it is exiting.
func TestAProcessIsExitingWhenItsStreamEnds(t *testing.T) {
	for range 100 {
		ours, theirs, err := socketPair()
		require.NoError(t, err)
		file := os.NewFile(uintptr(theirs), "theirs")
		sleeper := exec.Command("sleep", "1000")
		sleeper.ExtraFiles = []*os.File{file}
		require.NoError(t, sleeper.Start())
		require.NoError(t, file.Close())
		require.NoError(t, sleeper.Process.Kill())
		var buf [1]byte
		n, err := unix.Read(ours, buf[:])
		require.NoError(t, err)
		require.Zero(t, n)
		require.True(t, exiting(sleeper.Process.Pid))
		require.Error(t, sleeper.Wait())
		require.NoError(t, unix.Close(ours))
	}
}
