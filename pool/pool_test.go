package pool

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// fakeSource is a version of the state with a few arrays.
type fakeSource struct {
	mu       sync.Mutex
	arrays   map[string]*Array
	released int
}

func (s *fakeSource) Version() uint64 { return 5 }
func (s *fakeSource) Heavy(key string) (*Array, Presence) {
	if key == "half-made" {
		return nil, Unpublished
	}
	if a := s.arrays[key]; a != nil {
		return a.Ref(), Present
	}
	return nil, Absent
}
func (s *fakeSource) Keys() []string                { return []string{"x"} }
func (s *fakeSource) Nearest(string) []string       { return []string{"x"} }
func (s *fakeSource) Export(string) ([]byte, error) { return []byte("state"), nil }
func (s *fakeSource) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released++
}

func TestTasksRunAndGiveTheirResults(t *testing.T) {
	f := newFixture(t, 2, "zygote")
	var tasks []*Task
	for i := range 200 {
		tasks = append(tasks, f.submit(f.call("echo", strconv.Itoa(i))))
	}
	for i, task := range tasks {
		require.Equal(t, strconv.Itoa(i), text(f.end(task)))
	}
	require.Equal(t, uint64(200), f.Stats().Done)
	require.True(t, f.Drain(0))
}

func TestAFailureBelongsToItsTaskAlone(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	o := f.run("raise no such thing")
	require.Equal(t, Failed, o.Status)
	require.Equal(t, "raise no such thing raised ValueError: no such thing", o.Message)
	require.Equal(t, "the traceback", o.Traceback)
	require.Equal(t, "still here", text(f.end(f.submit(f.call("echo", "still here")))))
}

func TestADeathCostsTheTaskThatHadStartedAndNoOther(t *testing.T) {
	for target, says := range map[string]string{
		"kill":    "was killed by SIGKILL while it ran kill",
		"exit 3":  "exited with status 3 while it ran exit 3",
		"exit 0":  "exited with status 0",
		"garbage": "broke the protocol",

		"answer-behind-garbage": "broke the protocol",

		"close-socket":       "lost its connection to the host, because something in it closed or replaced a descriptor that was not its own, and was ended while it ran close-socket",
		"find-socket-closed": "lost its connection to the host, because something in it closed or replaced a descriptor that was not its own, and ended while it ran find-socket-closed",
	} {
		t.Run(target, func(t *testing.T) {
			f := newFixture(t, 1, "zygote")
			victim := f.start(target)
			var others []*Task
			for i := range 20 {
				others = append(others, f.submit(f.call("echo", strconv.Itoa(i))))
			}
			o := f.end(victim)
			require.Equal(t, Crashed, o.Status)
			require.Contains(t, o.Message, says)
			for i, task := range others {
				require.Equal(t, strconv.Itoa(i), text(f.end(task)))
			}
		})
	}
}

func TestAPrefetchedTaskOfADeadWorkerRunsElsewhere(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	// Both functions are known to be short, so the second is sent behind the first.
	f.run("reply-then-die")
	f.end(f.submit(f.call("echo", "")))
	first, second := f.start("reply-then-die"), f.submit(f.call("echo", "survivor"))
	require.Equal(t, "done", text(f.end(first)), "a result that was sent whole counts, though its worker died right after")
	require.Equal(t, "survivor", text(f.end(second)))
}

func TestRetriesCoverCrashes(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	call := f.call("die-once "+filepath.Join(t.TempDir(), "mark"), "")
	call.Retries = 1
	require.Equal(t, "second time", text(f.end(f.submit(call))))
}

func TestATimeoutEndsTheWorkerAndOnlyThat(t *testing.T) {
	f := newFixture(t, 2, "zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	bystander := f.start("wait-for " + gate)
	var spared, victim int
	eventually(t, "one worker runs it, and the other is there", func() bool {
		var idle []int
		for _, w := range f.Stats().Workers {
			switch w.State {
			case "busy":
				spared = w.PID
			case "idle":
				idle = append(idle, w.PID)
			}
		}
		if len(idle) != 1 {
			return false
		}
		victim = idle[0]
		return f.started(bystander)
	})
	call := f.call("hang", "")
	call.Timeout = 50 * time.Millisecond
	o := f.end(f.submit(call))
	require.Equal(t, TimedOut, o.Status)
	require.Contains(t, o.Message, fmt.Sprintf("its timeout of 50ms; its worker (pid %d) was ended and replaced", victim))
	eventually(t, "that worker is gone", func() bool { return residentBytes(victim) == 0 })
	replacement := f.pid()
	require.NotContains(t, []int{victim, spared}, replacement)
	require.ElementsMatch(t, []int{spared, replacement}, f.Processes()[1:], "the other worker is the one of before")
	require.False(t, bystander.Ended())
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Equal(t, "waited", text(f.end(bystander)))
}

func TestCancelReachesQueuedAndRunningTasks(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	running := f.start("hang")
	queued := f.submit(f.call("echo", "never"))
	eventually(t, "it runs", func() bool { s := f.Stats(); return s.Running == 1 && s.Queued == 1 })
	f.Cancel(queued)
	require.Equal(t, Cancelled, f.end(queued).Status)
	f.Cancel(running)
	f.Cancel(running)
	require.Equal(t, Cancelled, f.end(running).Status)
	require.Equal(t, "next", text(f.end(f.submit(f.call("echo", "next")))))
}

func TestCancellingATaskThatWasSentAheadSparesTheOneBefore(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	f.run("wait-for " + gate)
	f.run("echo")
	require.NoError(t, os.Remove(gate))
	first, second := f.start("wait-for "+gate), f.submit(f.call("echo", "never"))
	eventually(t, "both are with the worker", func() bool { return f.Stats().Running == 2 })
	f.Cancel(second)
	require.Equal(t, Cancelled, f.end(second).Status)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Equal(t, "waited", text(f.end(first)))
	require.Equal(t, "next", text(f.end(f.submit(f.call("echo", "next")))))
}

func TestTheZygotesDeathIsSurvived(t *testing.T) {
	f := newFixture(t, 2, "zygote")
	running := f.start("hang")
	eventually(t, "it runs", func() bool { return len(f.Processes()) == 3 && f.Stats().Running == 1 })
	eventually(t, "it has started", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return running.worker != nil && running.worker.running() == running.id
	})
	require.NoError(t, unix.Kill(f.Processes()[0], unix.SIGKILL))
	o := f.end(running)
	require.Equal(t, Crashed, o.Status)
	require.Contains(t, o.Message, "zygote lost")
	require.Equal(t, "again", text(f.end(f.submit(f.call("echo", "again")))))
}

func TestAZygoteThatCannotStartIsAnErrorNotAHang(t *testing.T) {
	f := newFixture(t, 1, "dying zygote")
	o := f.run("echo")
	require.Equal(t, NoWorkers, o.Status)
	require.Contains(t, o.Message, "exited with status 7")
	call := f.call("echo", "")
	_, err := f.Submit(call)
	require.ErrorContains(t, err, "worker processes cannot be started")
}

func TestAnInterpreterThatDoesNotExistIsNamed(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	f.options.Python = "/nowhere/python"
	o := f.run("echo")
	require.Equal(t, NoWorkers, o.Status)
	require.Contains(t, o.Message, "/nowhere/python")
}

func TestCloseEndsASilentZygoteAndWhatWaits(t *testing.T) {
	f := newFixture(t, 1, "silent zygote")
	waiting := f.start("echo")
	f.Close(0)
	require.Equal(t, Cancelled, f.end(waiting).Status)
	_, err := f.Submit(f.call("echo", ""))
	require.ErrorIs(t, err, ErrClosed)
}

func TestHeavyKeysAreFetchedOnceAndThenSentAlong(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	a := f.array("x", 42)
	defer a.Unref()
	source := &fakeSource{arrays: map[string]*Array{"x": a}}
	with := func(target string) Call {
		c := f.call(target, "")
		c.Source = source
		return c
	}
	require.Equal(t, "x [1] 42", text(f.end(f.submit(with("fetch x")))))
	require.Equal(t, `absent, there are ["x"]`, text(f.end(f.submit(with("fetch y")))))
	require.Equal(t, "unpublished", text(f.end(f.submit(with("fetch half-made")))))
	// The same function is given what it asked for before; "given" names what came along.
	require.Equal(t, []string{"x"}, f.targets["fetch x"].learned)
	declared := with("given")
	declared.Keys = []string{"x"}
	require.Equal(t, "x", text(f.end(f.submit(declared))))
	eventually(t, "every task has let go of its version", func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		return source.released == 4
	})
}

func TestLargeInputsTravelInASegment(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	input := make([]byte, 200_000)
	for i := range input {
		input[i] = 1
	}
	call := f.call("sum-input", string(input))
	require.NotNil(t, call.Input.Segment)
	require.Equal(t, "200000", text(f.end(f.submit(call))))
	// The worker acknowledges and the bytes leave the budget.
	eventually(t, "the input's segment is given back", func() bool { return f.heap.Stats().InUse == 0 })
}

func TestLargeResultsAreTakenOverWithoutACopyOrElseCopied(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	granted := filepath.Join(t.TempDir(), "granted")
	for target, copied := range map[string]bool{"large": !shm.Probe().Leases, "large-still-written": true} {
		t.Run(target, func(t *testing.T) {
			o := f.run(target + " " + granted)
			require.Equal(t, OK, o.Status, o.Message)
			require.NotNil(t, o.Value.Segment)
			number, err := os.ReadFile(granted)
			require.NoError(t, err)
			require.Equal(t, copied, strconv.FormatUint(o.Value.Segment.ID(), 10) != string(number), "the worker was granted segment %s", number)
			base, err := o.Value.Segment.Readable()
			require.NoError(t, err)
			for _, b := range bytesAt(base, int(o.Value.Spans[0].Len)) {
				require.Equal(t, byte(7), b)
			}
		})
	}
}

func TestAGrantOverTheLimitIsAnAnswerNotADeath(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	require.Contains(t, text(f.run("too-much")), "full")
}

func TestEndsAreAnnounced(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	q, err := NewQueue()
	require.NoError(t, err)
	defer q.Close()
	call := f.call("echo", "")
	call.Queue, call.Handle, call.Tag = q, 77, 88
	f.end(f.submit(call))
	fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 5000)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	events := make([]Event, 4)
	require.Equal(t, 1, q.Take(events))
	require.Equal(t, Event{Handle: 77, Tag: 88, Status: OK}, events[0])
	n, _ = unix.Poll(fds, 0)
	require.Zero(t, n, "an empty queue is not readable")
}

func TestAnEndCanBeAnnouncedLater(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	q, err := NewQueue()
	require.NoError(t, err)
	defer q.Close()
	ended, running := f.start("echo"), f.start("hang")
	f.end(ended)
	ended.Announce(q, 1, 11)
	running.Announce(q, 2, 22)
	f.Cancel(running)
	events := make([]Event, 4)
	require.Equal(t, 2, q.Take(events))
	require.Equal(t, []Event{{Handle: 1, Tag: 11, Status: OK}, {Handle: 2, Tag: 22, Status: Cancelled}}, events[:2])
}

func TestASlowRunAmongInstantOnesIsForgiven(t *testing.T) {
	f := &Function{}
	require.False(t, f.usuallyInstant(), "nothing is known")
	for range 4 {
		f.ran(time.Microsecond)
	}
	require.True(t, f.usuallyInstant())
	f.ran(time.Second)
	require.True(t, f.usuallyInstant())
	for range 4 {
		f.ran(time.Second)
	}
	require.False(t, f.usuallyInstant())
}

// A thread that sleeps in the kernel until a task has ended.
func TestWaitingForTheEndOfATask(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	hang := f.start("hang")
	require.False(t, hang.Wait(0))
	require.False(t, hang.Wait(time.Millisecond))
	ends := make(chan bool)
	for _, timeout := range []time.Duration{-1, -1, time.Minute} {
		go func() { ends <- hang.Wait(timeout) }()
	}
	eventually(t, "all of them sleep", func() bool { return hang.waiting.Load() == 3 })
	f.Cancel(hang)
	for range 3 {
		require.True(t, <-ends)
	}
	require.Zero(t, hang.waiting.Load())
	require.True(t, hang.Wait(0))
	require.True(t, f.start("echo").Wait(-1))
}

func TestLogsReachTheHost(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	q, err := NewQueue()
	require.NoError(t, err)
	defer q.Close()
	f.AnnounceLogs(q)
	f.run("log hello")
	records := f.Logs()
	require.Equal(t, "a warning", records[0].Message, "the zygote's warnings are logged")
	require.Equal(t, "hello", records[1].Message)
	events := make([]Event, 4)
	require.Equal(t, 1, q.Take(events), "one event for all waiting records")
	require.True(t, events[0].Log)
}

func TestNothingIsLostOrRunTwiceWhileWorkersDie(t *testing.T) {
	f := newFixture(t, 3, "zygote")
	trace := filepath.Join(t.TempDir(), "trace")
	ends, runs := map[string]int{}, map[string]int{}
	var tasks []*Task
	for i := range 300 {
		target := "echo"
		if i%10 == 9 {
			target = []string{"kill", "exit 1", "reply-then-die"}[i/10%3]
		}
		tasks = append(tasks, f.submit(f.call("trace "+trace+" "+target, strconv.Itoa(i))))
	}
	for _, task := range tasks {
		o := f.end(task)
		ends[fmt.Sprintf("%s %d", strings.TrimPrefix(task.Name(), "trace "+trace+" "), o.Status)]++
	}
	require.Equal(t, map[string]int{"echo 0": 270, "kill 201": 10, "exit 1 201": 10, "reply-then-die 0": 10}, ends)
	f.Close(0) // no worker is left that might run one more
	written, err := os.ReadFile(trace)
	require.NoError(t, err)
	for _, run := range strings.Fields(string(written)) {
		runs[run]++
	}
	for i, task := range tasks {
		require.Equal(t, 1, runs[strconv.Itoa(i)], "runs of task %d, %s", i, task.Name())
	}
}

func TestAFunctionIsSentToAWorkerOnce(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	record := Value{Codec: CodecRaw, Inline: [][]byte{[]byte("code")}}
	first, second := f.Define("first", record), f.Define("second", record)
	defer f.Forget(first)
	defer f.Forget(second)
	received := func(function *Function) string {
		call := f.call("functions-received", "")
		call.Function = function
		return text(f.end(f.submit(call)))
	}
	for range 3 {
		require.Equal(t, "1", received(first))
	}
	require.Equal(t, "2", received(second))
	require.Equal(t, "2", received(first))
	f.run("kill")
	require.Equal(t, "1", received(first), "the worker in its place has none yet")
	require.Equal(t, "1", received(first))
}
