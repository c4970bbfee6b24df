//go:build failpoints

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// TestFailpoints fails the system calls with which a host that is not Python finds its interpreter.
func TestFailpoints(t *testing.T) {
	t.Cleanup(failpoint.Disarm)
	dir := t.TempDir()
	python := filepath.Join(dir, "python3")
	answer := fmt.Sprintf(`["%s", ["/a"], "%s"]`, dir, python)
	require.NoError(t, os.WriteFile(python, []byte("#!/bin/sh\necho '"+answer+"'\n"), 0o700))
	ask := func() error {
		o := pool.Options{Env: []string{"PATH=" + dir}}
		err := locate(t.Context(), &o)
		require.Equal(t, err == nil, o.WorkerMain == filepath.Join(dir, "worker", "zygote.py"))
		return err
	}
	require.NoError(t, ask())
	var table failpoint.Table
	for _, f := range []struct {
		point failpoint.Point
		err   error
		says  string // empty: nobody is to notice
	}{
		{failpoint.EngineStat, syscall.EACCES, "python3 is not on PATH"},
		{failpoint.EngineStartProcess, syscall.EAGAIN, "cannot be asked where theus is installed: resource temporarily unavailable"},
		{failpoint.EngineStartProcess, syscall.ENOMEM, "cannot be asked where theus is installed: cannot allocate memory"},
		{failpoint.EngineWaitProcess, syscall.ECHILD, ""},
		{failpoint.EngineWaitProcess, syscall.EINVAL, "cannot be asked where theus is installed: invalid argument"},
	} {
		plan := failpoint.Arm(f.point, 1, 1, f.err)
		err := ask()
		failpoint.Disarm()
		if f.says == "" {
			require.NoError(t, err, f.point)
			table.Add(f.point, plan, failpoint.Survived)
		} else {
			require.ErrorContains(t, err, f.says, f.point)
			table.Add(f.point, plan, failpoint.Refused)
		}
		require.NoError(t, ask(), "the next time")
	}
	t.Logf("\n%s", table.Of("engine"))
	for _, p := range failpoint.Of("engine") {
		require.NotZero(t, table.Failed(p), "%s has never failed", p)
	}
}

// TestFailpointsAtOpen: an engine that cannot be made is refused, here for lack of descriptors, with a reason that says so.
func TestFailpointsAtOpen(t *testing.T) {
	t.Cleanup(failpoint.Disarm)
	for _, point := range []failpoint.Point{failpoint.PoolEpollCreate, failpoint.PoolEventfd} {
		failpoint.Arm(point, 1, 1, syscall.EMFILE)
		_, err := Open(Options{Lazy: true})
		var limit *shm.LimitError
		require.ErrorAs(t, err, &limit, point)
		require.Equal(t, "descriptors", limit.What)
		open(t, Options{})
	}
}
