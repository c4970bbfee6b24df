package pool

import (
	"os"
	"os/signal"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A host may have given SIGPIPE back its default action, which ends it.
func TestAMessageToAClosedSocketIsNoSignal(t *testing.T) {
	seen := make(chan os.Signal, 8)
	signal.Notify(seen, unix.SIGPIPE, unix.SIGTERM)
	defer signal.Stop(seen)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fds[0])
	require.NoError(t, unix.Close(fds[1]))

	_, err = unix.SendmsgN(fds[0], []byte("x"), nil, nil, 0)
	require.Equal(t, unix.EPIPE, err)
	require.Equal(t, unix.SIGPIPE, <-seen, "as the kernel has it")

	_, err = sendmsg(fds[0], []byte("x"), nil)
	require.Equal(t, unix.EPIPE, err)
	require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
	require.Equal(t, unix.SIGTERM, <-seen, "nothing came before it") // Go tells of lower numbers first
}
