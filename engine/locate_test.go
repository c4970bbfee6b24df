package engine

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/pool"
	"golang.org/x/sys/unix"
)

// interpreter writes a program that stands in for Python.
func interpreter(t *testing.T, script string) *pool.Options {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return &pool.Options{Python: path, Env: os.Environ()}
}

func TestTheInterpreterSaysWhereTheWorkerProgramIs(t *testing.T) {
	o := interpreter(t, `echo '["/lib/theus", ["/lib"], "/bin/python"]'`)
	require.NoError(t, locate(context.Background(), o))
	require.Equal(t, "/lib/theus/worker/zygote.py", o.WorkerMain)
	require.Equal(t, "/bin/python", o.Python)
	require.Equal(t, []string{"/lib"}, o.SysPath)
}

func TestAnAnswerCountsThoughSomebodyElseReapedTheInterpreter(t *testing.T) {
	stolen := stealChildren(t)
	deadline := time.Now().Add(time.Minute)
	for before := stolen.Load(); stolen.Load() == before; {
		require.True(t, time.Now().Before(deadline), "nothing was stolen")
		o := interpreter(t, `echo '["/lib/theus", [], "/bin/python"]'`)
		require.NoError(t, locate(context.Background(), o))
		require.Equal(t, "/lib/theus/worker/zygote.py", o.WorkerMain)
	}
}

// stealChildren waits for all children, as some hosts do in a thread of their own, and counts those that it got.
func stealChildren(t *testing.T) *atomic.Int64 {
	t.Helper()
	var stolen atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err == nil && pid > 0 {
				stolen.Add(1)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return &stolen
}

func TestAnInterpreterThatDoesNotAnswerIsEndedWithTheSearch(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	// Its child holds the pipes, so their end does not come.
	o := interpreter(t, "sleep 1000 & echo $! > "+pidFile+"; wait")
	wanted, giveUp := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- locate(wanted, o) }()
	var child int
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(pidFile)
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return child > 0
	}, time.Minute, time.Millisecond)
	giveUp()
	select {
	case err := <-ended:
		require.ErrorContains(t, err, "cannot be asked where theus is installed")
	case <-time.After(time.Minute):
		require.Fail(t, "it was not ended")
	}
	require.NoError(t, unix.Kill(child, unix.SIGKILL))
}
