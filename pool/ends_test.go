package pool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// Ends that meet: of tasks, workers, zygotes and the pool.

func TestCloseLetsTheTasksThatAreLeftRun(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	// Nothing has started yet, and the worker dies in between.
	victim, survivor := f.start("kill"), f.submit(f.call("echo", "survivor"))
	f.Close(10 * time.Second)
	require.Equal(t, Crashed, f.end(victim).Status)
	require.Equal(t, "survivor", text(f.end(survivor)))
}

func TestCloseLetsTheTasksThatAreLeftOutliveTheZygote(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	running, behind := f.start("wait-for "+gate), f.submit(f.call("echo", "survivor"))
	eventually(t, "it has started", func() bool { return f.started(running) })
	closed := make(chan struct{})
	f.spawn("close", func() {
		defer close(closed)
		f.Close(10 * time.Second)
	})
	eventually(t, "it closes", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.closed {
			return false
		}
		f.zygote.kill()
		return true
	})
	require.Equal(t, Crashed, f.end(running).Status)
	require.Equal(t, "survivor", text(f.end(behind)))
	<-closed
}

func TestCloseWhileTheZygoteStarts(t *testing.T) {
	for range 20 {
		f := newFixture(t, 1, "silent zygote")
		waiting := f.start("echo")
		f.Close(0)
		require.Equal(t, Cancelled, f.end(waiting).Status)
	}
}

func TestZygotesWhoseWorkersNeverGetReadyAreGivenUp(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			f := newFixture(t, workers, "barren zygote")
			o := f.run("echo")
			require.Equal(t, NoWorkers, o.Status)
			require.Contains(t, o.Message, "the zygote exited with status 7")
			require.Contains(t, o.Message, "3 times in a row", "a zygote's death counts once, however many workers it takes along")
		})
	}
}

func TestATimeoutDoesNotReachBeyondTheResult(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	call := f.call("hang", "")
	call.Timeout = time.Hour
	task := f.submit(call)
	eventually(t, "it has started", func() bool { return f.started(task) })
	f.mu.Lock()
	w := task.worker
	f.completed(w, task.id) // its result is being taken over, which may take long
	f.mu.Unlock()
	f.expire(task, w)
	f.mu.Lock()
	require.False(t, w.condemned, "the worker may run another task by now")
	f.mu.Unlock()
	require.False(t, task.Ended())
	f.Cancel(task)
	require.Equal(t, Cancelled, f.end(task).Status)
}

// The first task's result is in the socket, unread, and its worker has gone on to the second.
func TestEndingATaskSparesTheOneThatItsWorkerHasGoneOnTo(t *testing.T) {
	for name, c := range map[string]struct {
		endFirst func(*fixture, *Task)
		status   Status
	}{
		"cancelled": {func(f *fixture, first *Task) { f.Cancel(first) }, Cancelled},
		"timed out": {func(f *fixture, first *Task) { f.expire(first, f.workers[0]) }, OK},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1, "zygote")
			gate := filepath.Join(t.TempDir(), "gate")
			require.NoError(t, os.WriteFile(gate, nil, 0o600))
			f.run("wait-for " + gate) // both are known to be short now, so the second is sent ahead
			f.end(f.submit(f.call("echo", "")))
			require.NoError(t, os.Remove(gate))
			f.reactor.reading.Lock()
			first, second := f.submit(f.call("echo", "unread")), f.start("wait-for "+gate)
			eventually(t, "the second runs", func() bool { return f.started(second) })
			c.endFirst(f, first)
			f.reactor.reading.Unlock()
			require.NoError(t, os.WriteFile(gate, nil, 0o600))
			require.Equal(t, "waited", text(f.end(second)))
			require.Equal(t, c.status, f.end(first).Status)
		})
	}
}

// The first task hangs; the second has not begun, and runs on another worker.
func TestEndingATaskMovesTheOneThatWasSentAheadOfIt(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	f.run("wait-for " + gate)
	f.end(f.submit(f.call("echo", "")))
	require.NoError(t, os.Remove(gate))
	first, second := f.start("wait-for "+gate), f.submit(f.call("echo", "moved"))
	eventually(t, "the first runs", func() bool { return f.started(first) })
	f.Cancel(first)
	require.Equal(t, Cancelled, f.end(first).Status)
	require.Equal(t, "moved", text(f.end(second)))
}

// Of functions that are known to be instant, two are sent ahead.
func TestEndsOfThreeTasksThatOneWorkerHas(t *testing.T) {
	for name, end := range map[string]func(f *fixture, gate string, first *Task, behind []*Task){
		"in their order": func(f *fixture, gate string, first *Task, behind []*Task) {
			require.NoError(f.t, os.WriteFile(gate, nil, 0o600))
			require.Equal(f.t, "waited", text(f.end(first)))
		},
		"the first is cancelled": func(f *fixture, gate string, first *Task, behind []*Task) {
			f.Cancel(first)
			require.Equal(f.t, Cancelled, f.end(first).Status)
		},
		"the others are cancelled": func(f *fixture, gate string, first *Task, behind []*Task) {
			for _, task := range behind[:2] {
				f.Cancel(task)
				require.Equal(f.t, Cancelled, f.end(task).Status)
			}
			require.NoError(f.t, os.WriteFile(gate, nil, 0o600))
			require.Equal(f.t, "waited", text(f.end(first)))
		},
		"the worker dies": func(f *fixture, gate string, first *Task, behind []*Task) {
			for _, pid := range f.Processes()[1:] { // the first is the zygote
				require.NoError(f.t, unix.Kill(pid, unix.SIGKILL))
			}
			require.Equal(f.t, Crashed, f.end(first).Status)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1, "zygote")
			gate := filepath.Join(t.TempDir(), "gate")
			require.NoError(t, os.WriteFile(gate, nil, 0o600))
			for range 4 {
				f.run("wait-for " + gate)
				f.end(f.submit(f.call("echo", "")))
			}
			require.NoError(t, os.Remove(gate))
			first := f.start("wait-for " + gate)
			var behind []*Task
			for i := range 3 {
				behind = append(behind, f.submit(f.call("echo", fmt.Sprint(i))))
			}
			eventually(t, "three are with the worker, and it has begun", func() bool {
				s := f.Stats()
				return s.Running == 3 && s.Queued == 1 && f.started(first)
			})
			end(f, gate, first, behind)
			for i, task := range behind {
				if o := f.end(task); o.Status != Cancelled {
					require.Equal(t, fmt.Sprint(i), text(o))
				}
			}
			require.Equal(t, "next", text(f.end(f.submit(f.call("echo", "next")))))
		})
	}
}

// A worker keeps no map of it beyond a task.
func TestAnOutputIsGivenWritableWithEachTask(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	seg, err := f.heap.CreateOutput(10, "output")
	require.NoError(t, err)
	defer seg.Unref()
	address, _ := seg.Writable()
	for n := range byte(3) {
		seg.Ref()
		call := f.call("write-output", "")
		call.Arrays = []*Array{{Segment: seg, Output: true, Layout: Layout{Descr: "|u1", Itemsize: 1, Shape: []int64{10}, Strides: []int64{1}}}}
		require.Equal(t, "written", text(f.end(f.submit(call))))
		require.Equal(t, n+1, bytesAt(address, 1)[0])
	}
	if shm.Probe().Leases {
		require.NoError(t, seg.Settle(), "nobody has it any more")
	}
}

func TestAResultInMemoryThatIsGoneCostsItsTaskOnly(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	a := f.array("x", 1)
	call := f.call("refer-to-fetched "+gate, "")
	call.Source = &fakeSource{arrays: map[string]*Array{"x": a}} // which does not hold it
	task := f.submit(call)
	eventually(t, "it has the array", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(task.call.Function.learned) == 1
	})
	a.Unref()
	eventually(t, "the host has let go of it", func() bool { return f.heap.Stats().Segments == 0 })
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	o := f.end(task)
	require.Equal(t, Failed, o.Status)
	require.Contains(t, o.Message, "was not granted")
	require.Equal(t, "next", text(f.end(f.submit(f.call("echo", "next")))))
}

func TestABugWhileAResultIsTakenOverLeavesTheLockInOrder(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	require.Panics(t, func() {
		f.mu.Lock()
		defer f.unlock()
		_ = f.unlocked(func() error { panic("a bug") })
	})
	require.Equal(t, "next", text(f.end(f.submit(f.call("echo", "next")))))
}

func TestAFunctionThatWasForgottenIsRefused(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	function := f.Define("f", Value{})
	f.Forget(function)
	call := f.call("", "")
	call.Function = function
	_, err := f.Submit(call)
	require.ErrorIs(t, err, ErrReleased)
}

func TestTheLastQueueForLogsKeepsThem(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	before, now := &Queue{fd: -1}, &Queue{fd: -1}
	f.AnnounceLogs(before)
	f.AnnounceLogs(now)
	f.QuietLogs(before)
	require.Same(t, now, f.logQueue)
	f.QuietLogs(now)
	require.Nil(t, f.logQueue)
}

func TestAnInputOfManySpansFitsIntoItsFrame(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	spans := make([][]byte, MaxSpans)
	for i := range spans {
		spans[i] = make([]byte, 12) // in sum little, each named in 16 bytes
	}
	call := f.call("given", "")
	for i := range 20 {
		call.Arrays = append(call.Arrays, f.array(fmt.Sprint("key ", i), 1))
	}
	var err error
	call.Input, err = NewValue(f.heap, CodecPickle, spans, "input")
	require.NoError(t, err)
	require.NotNil(t, call.Input.Segment)
	task := f.submit(call)
	require.Equal(t, OK, f.end(task).Status)
	_, err = NewValue(f.heap, CodecPickle, append(spans, nil), "input")
	require.ErrorContains(t, err, "more than")
}

func TestATaskThatKillsItsWorkersDoesNotKeepOthersWaiting(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	ends, err := NewQueue()
	require.NoError(t, err)
	defer ends.Close()
	submit := func(target string, tag uint64, retries int) *Task {
		call := f.call(target, "")
		call.Queue, call.Tag, call.Retries = ends, tag, retries
		return f.submit(call)
	}
	tasks := []*Task{submit("kill", 0, 1)}
	for tag := range uint64(3) {
		tasks = append(tasks, submit("pid", tag+1, 0))
	}
	for _, task := range tasks {
		f.end(task)
	}
	require.Equal(t, Crashed, tasks[0].Outcome().Status)
	var order [5]Event
	require.Equal(t, 4, ends.Take(order[:]))
	require.Equal(t, uint64(0), order[3].Tag, "its second try waits behind the others")
}

// started reports whether a worker has begun with a task.
func (f *fixture) started(task *Task) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return task.worker != nil && task.worker.running() == task.id
}

func TestEveryoneWhoClosesAPoolReturnsWhenItIsClosed(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	require.Equal(t, OK, f.run("echo").Status) // its processes are there
	forever, pids := f.start("hang"), f.Processes()
	var closers sync.WaitGroup
	for _, grace := range []time.Duration{-1, -1, 0, 0, 0} { // two would wait for the task
		closers.Add(1)
		f.spawn("close", func() {
			defer closers.Done()
			f.Close(grace)
			for _, pid := range pids {
				assert.True(t, unix.Kill(pid, 0) != nil || isZombie(pid), "process %d was there still", pid)
			}
		})
	}
	closers.Wait()
	require.Equal(t, Cancelled, f.end(forever).Status)
}

func TestCloseEndsTheSearchForTheWorkerProgram(t *testing.T) {
	searching := make(chan struct{})
	p, err := New(Options{Workers: 1, OnPanic: func(*guard.Panic) {}, Locate: func(wanted context.Context, _ *Options) error {
		close(searching)
		<-wanted.Done() // for ever, unless Close says so
		return wanted.Err()
	}})
	require.NoError(t, err)
	p.Start()
	<-searching
	p.Close(0)
}

func TestAResultThatHasComeCountsHoweverLateTheTimerIs(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	require.Equal(t, OK, f.run("echo").Status)
	w := f.workers[0]
	f.reactor.reading.Lock() // as in a host that is stopped: nothing is read
	call := f.call("echo", "in time")
	call.Timeout = time.Hour
	task := f.submit(call)
	eventually(t, "its result has come", func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(w.conn.fd), Events: unix.POLLIN}}, 0)
		return n == 1
	})
	f.expire(task, w)
	f.reactor.reading.Unlock()
	require.Equal(t, "in time", text(f.end(task)))
}

// holder is a version of the state that looks, when it is given back, whether its task has ended already.
type holder struct {
	fakeSource
	task  atomic.Pointer[Task]
	early atomic.Bool
}

func (h *holder) Release() {
	h.early.Store(h.task.Load().Ended())
	h.fakeSource.Release()
}

func TestATaskEndsAfterItsVersionIsGivenBack(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	h := &holder{}
	call := f.call("wait-for "+gate, "")
	call.Source = h
	task := f.submit(call)
	h.task.Store(task)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Equal(t, "waited", text(f.end(task)))
	require.Equal(t, 1, h.released, "who sees the end finds the memory free that the task alone held")
	require.False(t, h.early.Load())
}

// lasting is a version of the state that takes its time to be given back.
type lasting struct {
	fakeSource
	entered, leave chan struct{}
}

func (l *lasting) Release() {
	close(l.entered)
	<-l.leave
	l.fakeSource.Release()
}

func TestCloseWaitsForAnEndThatAnotherCallerAnnounces(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	source := &lasting{entered: make(chan struct{}), leave: make(chan struct{})}
	call := f.call("hang", "")
	call.Source = source
	task := f.submit(call)
	f.spawn("cancel", func() { f.Cancel(task) })
	<-source.entered
	ended := make(chan bool, 1)
	f.spawn("close", func() {
		f.Close(0)
		ended <- task.Ended()
	})
	eventually(t, "all else is done", func() bool { return len(ended) > 0 || f.awaited() })
	close(source.leave)
	require.True(t, <-ended)
}

// awaited: somebody waits for the last end.
func (f *fixture) awaited() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.idlers) > 0
}

func TestWhatStandsBehindAPanicIsRun(t *testing.T) {
	var ran []int
	require.Panics(t, func() {
		runAll([]func(){
			func() { ran = append(ran, 0) },
			func() { panic("a bug") },
			func() { ran = append(ran, 2) },
			func() { ran = append(ran, 3) },
		})
	})
	require.Equal(t, []int{0, 2, 3}, ran)
}
