package pool

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testPeriod is short beside what users have, and long beside what a loaded machine makes of a millisecond. A zygote that takes
// longer than two of them to report a death is replaced as well: Buried may count one process more than had to go.
const testPeriod = 250 * time.Millisecond

func watchedPool(t *testing.T, workers int) *fixture {
	t.Helper()
	f := newFixture(t, workers, "zygote")
	f.options.WatchPeriod = testPeriod
	return f
}

func (f *fixture) pid() int {
	f.t.Helper()
	pid, err := strconv.Atoi(text(f.run("pid")))
	require.NoError(f.t, err)
	return pid
}

// messages are those of the log so far.
func (f *fixture) messages() (all string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, record := range f.logs.records {
		all += record.Message + "\n"
	}
	return all
}

func (f *fixture) roundIsDue() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.round != nil
}

func TestAnIdleWorkerGivesBackWhatOnlyItsGarbageHolds(t *testing.T) {
	f := watchedPool(t, 1)
	a := f.array("x", 7)
	source := &fakeSource{arrays: map[string]*Array{"x": a}}
	call := f.call("hoard x", "")
	call.Source = source
	require.Equal(t, "x [1] 7", text(f.end(f.submit(call))))
	a.Unref() // from here on only the worker maps it
	eventually(t, "the bytes are back", func() bool { return f.heap.Returned().Segments == 1 })
	require.False(t, f.heap.Retiring())
}

func TestMemoryComesBackAtOnceWhenItIsAskedFor(t *testing.T) {
	f := watchedPool(t, 1)
	f.options.WatchPeriod = time.Hour // never, by itself
	a := f.array("x", 7)
	call := f.call("hoard x", "")
	call.Source = &fakeSource{arrays: map[string]*Array{"x": a}}
	f.end(f.submit(call))
	a.Unref()
	require.True(t, f.heap.Retiring())
	f.LetGo()
	f.AwaitRetired(20*time.Second, func() bool { return !f.Asking() })
	require.False(t, f.heap.Retiring())
}

func TestAWorkerThatIsBusyForLongIsAskedForMemoryOnce(t *testing.T) {
	f := watchedPool(t, 1)
	f.options.WatchPeriod = time.Hour
	a := f.array("x", 7)
	call := f.call("hoard x", "")
	call.Source = &fakeSource{arrays: map[string]*Array{"x": a}}
	f.end(f.submit(call))
	gate := filepath.Join(t.TempDir(), "gate")
	task := f.start("wait-for " + gate)
	eventually(t, "it has started", func() bool { return f.started(task) })
	a.Unref()
	for range 100 {
		f.LetGo()
	}
	f.mu.Lock()
	asked := f.workers[0].watched.asked
	f.mu.Unlock()
	require.Equal(t, 1, asked)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	f.end(task)
	f.AwaitRetired(20*time.Second, func() bool { return !f.Asking() })
	require.False(t, f.heap.Retiring())
}

func TestAWorkerThatHangsBeforeATaskIsReplacedAndTheTaskRunsElsewhere(t *testing.T) {
	f := watchedPool(t, 1)
	f.run("hang-afterwards")
	require.Equal(t, "survivor", text(f.end(f.submit(f.call("echo", "survivor")))))
	require.Contains(t, f.messages(), "has hung since before it began a task")
	require.Positive(t, f.Buried())
}

func TestAnIdleWorkerThatHangsIsNoticedWithoutATask(t *testing.T) {
	f := watchedPool(t, 1)
	f.run("hang-afterwards")
	eventually(t, "it is gone", func() bool { return f.Buried() > 0 })
	require.Contains(t, f.messages(), "another takes its place")
}

// stop waits until the signal has had its effect: the process may go on for a moment.
func stop(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	eventually(t, "it is stopped", func() bool { return stopped(pid) })
}

func TestAStoppedWorkerIsReplacedUnlessItRunsATask(t *testing.T) {
	f := watchedPool(t, 1)
	first := f.pid()
	stop(t, first)
	second := f.pid()
	require.NotEqual(t, first, second)
	require.Contains(t, f.messages(), "was stopped from outside (SIGSTOP) before it began a task")

	gate := filepath.Join(t.TempDir(), "gate")
	task := f.start("wait-for " + gate)
	eventually(t, "it has started", func() bool { return f.started(task) })
	stop(t, second)
	eventually(t, "it shows", func() bool { return f.Stats().Workers[0].State == "stopped" })
	eventually(t, "advice", func() bool {
		said := f.messages()
		return strings.Contains(said, "which runs wait-for") && strings.Contains(said, "kill -CONT "+strconv.Itoa(second))
	})
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.NoError(t, unix.Kill(second, unix.SIGCONT))
	require.Equal(t, "waited", text(f.end(task)))
	require.Equal(t, second, f.pid(), "it was left alone")
}

// openAndClose ends the child that waits for the FIFO, once it does: without a reader such an open is refused.
func openAndClose(t *testing.T, fifo string) {
	t.Helper()
	writer := -1
	eventually(t, "the child waits", func() (there bool) {
		var err error
		writer, err = unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err == nil
	})
	require.NoError(t, unix.Close(writer))
}

func TestADeathIsNoticedThoughNeitherChannelTells(t *testing.T) {
	f := watchedPool(t, 1)
	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, unix.Mkfifo(gate, 0o600))
	f.run("leave-socket " + gate) // the stream will not end…
	defer openAndClose(t, gate)
	pid := f.pid()
	eventually(t, "the zygote has nothing more to say", func() bool { return f.reported(0) })
	zygote := f.Processes()[0]
	stop(t, zygote) // …and nobody reports
	task := f.start("hang")
	eventually(t, "it has started", func() bool { return f.started(task) })
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	require.Equal(t, Crashed, f.end(task).Status)
	require.NotEqual(t, pid, f.pid())
	require.GreaterOrEqual(t, f.Buried(), 2, "the worker and its zygote")
}

// reported: the zygote has said that the worker was started, which may come after the worker's own READY.
func (f *fixture) reported(index int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.workers[index]
	return w != nil && w.pidfd >= 0
}

func TestADeathIsNoticedOfAWorkerThatWasNeverReported(t *testing.T) {
	f := watchedPool(t, 1)
	f.options.Env = append(os.Environ(), roleVariable+"=mute zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, unix.Mkfifo(gate, 0o600))
	f.run("leave-socket " + gate)
	defer openAndClose(t, gate)
	pid := f.pid()
	task := f.start("hang")
	eventually(t, "it has started", func() bool { return f.started(task) })
	require.False(t, f.reported(0))
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	require.Equal(t, Crashed, f.end(task).Status)
	require.NotEqual(t, pid, f.pid())
}

func TestAWorkerThatWasNeverReportedIsReplacedWhenItsTaskIsCancelled(t *testing.T) {
	f := watchedPool(t, 1)
	f.options.Env = append(os.Environ(), roleVariable+"=mute zygote")
	pid := f.pid()
	task := f.start("hang")
	eventually(t, "it has started", func() bool { return f.started(task) })
	f.Cancel(task)
	require.Equal(t, Cancelled, f.end(task).Status)
	require.NotEqual(t, pid, f.pid())
	eventually(t, "it died with its zygote", func() bool { return residentBytes(pid) == 0 })
}

func TestAnIdlePoolHasNoTimer(t *testing.T) {
	f := watchedPool(t, 2)
	for range 20 {
		f.run("pid")
	}
	eventually(t, "the rounds end", func() bool { return !f.roundIsDue() })
	require.False(t, f.LastRound().IsZero())
	before := f.LastRound()
	_, _ = unix.Poll(nil, int(3*testPeriod.Milliseconds())) // not a wait for anything: nothing is to happen
	require.Equal(t, before, f.LastRound())
	require.False(t, f.roundIsDue())
}

func TestALongTaskIsNoHang(t *testing.T) {
	f := watchedPool(t, 1)
	gate := filepath.Join(t.TempDir(), "gate")
	task := f.start("wait-for " + gate)
	eventually(t, "it has started", func() bool { return f.started(task) })
	from := f.LastRound()
	eventually(t, "many rounds pass", func() bool { return f.LastRound() != from && f.roundIsDue() })
	_, _ = unix.Poll(nil, int(2*hangRounds*testPeriod.Milliseconds())) // twice what a hanging worker is given
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Equal(t, "waited", text(f.end(task)))
	require.Zero(t, f.Buried())
}

func TestAWorkerThatIsBeingDebuggedIsLeftAlone(t *testing.T) {
	f := watchedPool(t, 1)
	f.run("hang-afterwards")
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.workers[0]
	w.ask()
	for range 3 * hangRounds {
		f.lookAt(w, seen{letter: tracedLetter})
	}
	require.False(t, w.condemned)
	for range hangRounds + 1 {
		f.lookAt(w, seen{letter: "S"})
	}
	require.True(t, w.condemned, "as it would have been otherwise")
}

// freezer is a control group of version 1 whose processes the kernel keeps from doing anything, dying of SIGKILL included.
type freezer struct {
	t   *testing.T
	dir string
}

func newFreezer(t *testing.T) *freezer {
	t.Helper()
	z := &freezer{t, fmt.Sprintf("/sys/fs/cgroup/freezer/theus-test-%d", os.Getpid())}
	if err := os.Mkdir(z.dir, 0o755); err != nil {
		t.Skipf("no freezer of cgroup v1 can be had here, and nothing else keeps a process from dying on purpose: %v", err)
	}
	t.Cleanup(func() {
		z.set("THAWED")
		eventually(t, "its processes are gone", func() bool { return os.Remove(z.dir) == nil })
	})
	return z
}

func (z *freezer) set(state string) {
	z.t.Helper()
	file := filepath.Join(z.dir, "freezer.state")
	require.NoError(z.t, os.WriteFile(file, []byte(state), 0o600))
	eventually(z.t, state, func() bool {
		now, err := os.ReadFile(file)
		return err == nil && strings.TrimSpace(string(now)) == state
	})
}

func (z *freezer) freeze(pid int) {
	z.t.Helper()
	require.NoError(z.t, os.WriteFile(filepath.Join(z.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600))
	z.set("FROZEN")
}

func TestAWorkerThatDoesNotDieIsDoneWithout(t *testing.T) {
	t.Run("what it had not begun runs elsewhere", func(t *testing.T) {
		z, f := newFreezer(t), watchedPool(t, 1)
		kept := f.pid()
		z.freeze(kept)
		defer z.set("THAWED") // before it is looked for what is left
		require.NotEqual(t, kept, f.pid())
		require.Contains(t, f.messages(), "because the kernel keeps it")
		require.NotZero(t, residentBytes(kept))
	})
	t.Run("what it runs can be cancelled", func(t *testing.T) {
		z, f := newFreezer(t), watchedPool(t, 1)
		kept := f.pid()
		task := f.start("hang")
		eventually(t, "it has started", func() bool { return f.started(task) })
		z.freeze(kept)
		f.Cancel(task)
		require.Equal(t, Cancelled, f.end(task).Status)
		require.NotEqual(t, kept, f.pid())
		z.set("THAWED")
		eventually(t, "it dies at last", func() bool { return residentBytes(kept) == 0 })
		require.NotEqual(t, kept, f.pid())
	})
}
