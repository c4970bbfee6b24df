package pool

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/shm"
)

// An attempt ends after Patience; what holds the memory is known to end, so this tries until there is room.
func (f *fixture) roomFor(size int) {
	f.t.Helper()
	eventually(f.t, "there is room", func() bool { return f.more(size) == nil })
}

const mostOfTheHeap = 40 << 20

func (f *fixture) more(size int) error {
	v, err := f.NewValue(CodecRaw, [][]byte{make([]byte, size)}, "more")
	v.Release()
	return err
}

func TestAnAllocationWaitsForTheInputsOfTasks(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	blocker := f.start("hang")
	call := f.call("echo", "")
	v, err := f.NewValue(CodecRaw, [][]byte{make([]byte, mostOfTheHeap)}, "the input")
	require.NoError(t, err)
	call.Input = v
	task := f.submit(call)
	err = f.more(mostOfTheHeap)
	var backlog *BacklogError
	require.ErrorAs(t, err, &backlog)
	require.Equal(t, Backlog{Bytes: mostOfTheHeap, Tasks: 2}, backlog.Backlog)
	require.Contains(t, err.Error(), `held by "the input" 40.0 MiB`)
	require.Contains(t, err.Error(), "; unfinished tasks (2) hold 40.0 MiB of it: wait for results before making more")
	f.Cancel(blocker)
	f.Cancel(task)
	f.roomFor(mostOfTheHeap)
}

func TestAnAllocationWaitsForArraysThatOnlyTasksHave(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	a := f.arrayIn(mostOfTheHeap, "x", 7)
	var tasks []*Task
	for range 3 { // the first runs, and its worker was told of the array
		call := f.call("hang", "")
		call.Arrays = []*Array{a.Ref()}
		tasks = append(tasks, f.submit(call))
	}
	err := f.more(mostOfTheHeap)
	require.ErrorAs(t, err, new(*shm.FullError))
	require.NotErrorAs(t, err, new(*BacklogError), "the host holds the array as well")
	a.Unref()
	require.ErrorAs(t, f.more(mostOfTheHeap), new(*BacklogError))
	for _, task := range tasks {
		f.Cancel(task)
	}
	f.roomFor(mostOfTheHeap)
}

// oldVersion is one that has an array, which goes with it.
type oldVersion struct {
	fakeSource
	array *Array
}

func (v *oldVersion) Release() { v.array.Unref() }

func TestAnAllocationWaitsForVersionsThatOnlyTasksHave(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	a := f.arrayIn(mostOfTheHeap, "x", 7)
	version := &oldVersion{fakeSource{arrays: map[string]*Array{"x": a}}, a}
	f.options.Pinned = func(visit func(*Array)) { visit(a) }
	call := f.call("hang", "")
	call.Source, call.Keys = version, []string{"x"} // it is sent along, with a reference of its own
	task := f.submit(call)
	eventually(t, "it has started", func() bool { return f.started(task) })
	require.ErrorAs(t, f.more(mostOfTheHeap), new(*BacklogError))
	f.Cancel(task)
	f.roomFor(mostOfTheHeap)
}

// The end of the last task is heard of by a worker that has begun another one only when that is through as well.
func TestAnAllocationWaitsForWhatABusyWorkerHasYetToLetGoOf(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	a := f.arrayIn(mostOfTheHeap, "x", 7)
	call := f.call("hoard x", "")
	call.Source = &fakeSource{arrays: map[string]*Array{"x": a}}
	f.end(f.submit(call))
	task := f.start("hang")
	eventually(t, "it has started", func() bool { return f.started(task) })
	a.Unref()
	var backlog *BacklogError
	require.ErrorAs(t, f.more(mostOfTheHeap), &backlog)
	require.Equal(t, uint64(mostOfTheHeap), backlog.Backlog.Bytes)
	f.Cancel(task)
	f.roomFor(mostOfTheHeap)
}

// Tasks are not waited for when there would be no room even after they have ended.
func TestWhatTheEndsOfTasksMakeNoRoomForDoesNotWait(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	f.start("hang")
	kept := f.arrayIn(mostOfTheHeap, "kept", 1)
	defer kept.Unref()
	call := f.call("echo", "")
	v, err := f.NewValue(CodecRaw, [][]byte{make([]byte, 8<<20)}, "the input")
	require.NoError(t, err)
	call.Input = v
	f.submit(call)
	for _, size := range []int{65 << 20, 25 << 20} {
		err := f.more(size)
		require.ErrorAs(t, err, new(*shm.FullError))
		require.NotErrorAs(t, err, new(*BacklogError))
	}
	require.ErrorAs(t, f.more(20<<20), new(*BacklogError))
}

// attempts calls WithRoom with an allocation that is refused until it has been tried often enough, and calls on with the
// number of each try.
func (f *fixture) attempts(enough int, on func(try int)) error {
	tries := 0
	return f.WithRoom(func() error {
		tries++
		on(tries)
		if tries < enough {
			return &shm.FullError{Asked: 1, InUse: 10, Limit: 10}
		}
		return nil
	})
}

// The first try finds that it has to wait, the second is that of one who listens.
func TestTheEndOfATaskWakesWhoWaitsForItsMemory(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	f.start("hang")
	eventually(t, "it is in time", func() bool {
		call := f.call("echo", "")
		v, err := f.NewValue(CodecRaw, [][]byte{make([]byte, mostOfTheHeap)}, "the input")
		require.NoError(t, err)
		call.Input = v
		task := f.submit(call)
		defer f.Cancel(task)
		return f.attempts(3, func(try int) {
			if try == 2 {
				f.Cancel(task)
			}
		}) == nil
	})
}

func TestMemoryThatComesBackDuringATryIsTriedForAgain(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	require.NoError(t, f.attempts(3, func(try int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if try == 2 {
			f.announceFreed()
		}
	}))
}

func TestWhatATaskIsJustGivingBackIsWaitedFor(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	settle := func(n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.unannounced += n
	}
	settle(1)
	defer settle(-1)
	var backlog *BacklogError
	require.ErrorAs(t, f.attempts(3, func(int) {}), &backlog)
	require.Equal(t, 1, backlog.Backlog.Tasks)
}

// It would wait for those that wait for its worker.
func TestAWorkerDoesNotWaitForTasks(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	blocker := f.start("wait-for " + gate)
	large := f.start("large")
	call := f.call("echo", "")
	v, err := f.NewValue(CodecRaw, [][]byte{make([]byte, 64<<20-50_000)}, "the input")
	require.NoError(t, err)
	call.Input = v
	f.submit(call)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	f.end(blocker)
	said := text(f.end(large))
	require.Contains(t, said, "cannot allocate")
	require.NotContains(t, said, "unfinished tasks")
}

// What it held was not counted, and is not free: who allocates must wait for its end to be announced.
func TestATaskThatEndsWhileTheBacklogIsCountedIsSettling(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	f.start("hang")
	counts := func(n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.unannounced += n
	}
	f.options.Pinned = func(func(*Array)) { counts(1) }
	b := f.backlog()
	counts(-1)
	require.True(t, b.makesRoom(&shm.FullError{Asked: 1, Limit: 1, InUse: 1}))
}
