//go:build linux

package shm

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	watch(t)
	f := Probe()
	t.Logf("%+v", f)
	again, err := probeKernel()
	require.NoError(t, err)
	assert.Equal(t, f, again, "it does not change")
	// Tests of a feature are skipped without it; so that none is skipped for nothing:
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	var major, minor int
	_, err = fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	require.NoError(t, err)
	since := func(ma, mi int) bool { return major > ma || major == ma && minor >= mi }
	assert.True(t, f.Fallocate, "theus cannot do without")
	assert.True(t, f.FutureWrite || !since(5, 4))
	assert.True(t, f.DontUnmapMove || !since(5, 13))
	assert.True(t, f.NoexecSeal || !since(6, 3))
	leases, _ := os.ReadFile("/proc/sys/fs/leases-enable")
	assert.True(t, f.Leases || !since(5, 4) || string(leases) != "1\n")
}

func TestSealIsFinal(t *testing.T) {
	s := create(t, heapFor(t), 1)
	var kernel *KernelError
	require.ErrorAs(t, seal(s.fd, sealSize), &kernel)
	require.ErrorIs(t, kernel, syscall.EPERM)
}

func TestMemfdCannotBeExecuted(t *testing.T) {
	watch(t)
	if !Probe().NoexecSeal {
		t.Skip("this kernel has no MFD_NOEXEC_SEAL (Linux 6.3)")
	}
	fd, err := newMemfd()
	require.NoError(t, err)
	defer closeFD(fd)
	require.ErrorIs(t, syscall.Fchmod(fd, 0o777), syscall.EPERM)
}

func TestErrorsSayWhatAndWhereAndWhatToDo(t *testing.T) {
	full := &FullError{Asked: 3 << 30, InUse: 1 << 20, Limit: 2 << 30, Source: "cgroup v2 /a memory.max",
		Label: "X", Cause: syscall.ENOMEM, Holders: []Holder{{Label: "Y", Bytes: 700}, {Label: "Z", Bytes: 1, Retiring: true}}}
	assert.EqualError(t, full, `shm: cannot allocate 3.0 GiB for "X": 1.0 MiB of 2.0 GiB in use `+
		`(limited by cgroup v2 /a memory.max); the kernel said: cannot allocate memory; held by "Y" 700 bytes, `+
		`"Z" 1 bytes (let go, but still mapped by a worker); let go of arrays and snapshots that hold them, `+
		`or give the process more memory`)
	require.ErrorIs(t, full, syscall.ENOMEM)
	limit := &LimitError{What: "descriptors", Errno: syscall.EMFILE, Advice: "hold fewer"}
	assert.EqualError(t, limit, "shm: out of descriptors (too many open files): hold fewer")
	kernel := &KernelError{Feature: "memfd_create", Err: errors.New("no"), Advice: "allow it"}
	assert.EqualError(t, kernel, "shm: memfd_create failed: no: allow it")
	assert.Equal(t, "16.0 EiB", Readable(1<<64-1))
}
