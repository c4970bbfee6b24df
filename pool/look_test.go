package pool

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// withRings is a pool of one worker that uses its rings, and whose task "echo" is known to be short.
func withRings(t *testing.T) *fixture {
	t.Helper()
	if Processors < 2 {
		t.Skip("one polls only where a processor is left to do that on")
	}
	f := newFixture(t, 1, "zygote")
	f.run("use-rings")
	f.known("echo")
	return f
}

// known has a task counted as short.
func (f *fixture) known(target string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range 8 { // as many runs as are remembered
		f.target(target).ran(time.Microsecond)
	}
}

// byRing tells how many frames the worker has taken from its ring, and put into it.
func (f *fixture) byRing() (taken, put int) {
	f.t.Helper()
	_, err := fmt.Sscan(text(f.run("frames-by-ring")), &taken, &put)
	require.NoError(f.t, err)
	return taken, put
}

// glance looks until the task has ended.
func (f *fixture) glance(task *Task) *Outcome {
	f.t.Helper()
	eventually(f.t, "looking finds its end", task.Look)
	return f.end(task)
}

func TestFramesGoByRingsWhileBothLook(t *testing.T) {
	f := withRings(t)
	const tasks = 200
	for i := range tasks {
		word := fmt.Sprint(i)
		require.Equal(t, word, text(f.glance(f.submit(f.call("echo", word)))))
	}
	_, put := f.byRing()
	require.Positive(t, put, "no result has come by the ring")
	for range tasks {
		f.end(f.submit(f.call("echo", "")))
	}
	taken, after := f.byRing()
	require.Equal(t, put, after, "nobody looked, and a result came by the ring")
	require.Positive(t, taken, "no task has gone by the ring")
	large := string(make([]byte, 10_000))
	require.Equal(t, large, text(f.glance(f.submit(f.call("echo", large)))), "it fits into no slot")
}

func TestLookingPollsOnlyForTasksThatAreShortAndRun(t *testing.T) {
	f := withRings(t)
	unknown := f.start("hang")
	require.Nil(t, f.workerToPoll(unknown), "it is not known to be short")
	f.Cancel(unknown)
	f.known("hang")
	hang := f.start("hang")
	behind := f.start("hang")
	eventually(t, "it is with the worker", func() bool { return f.started(hang) })
	require.Nil(t, f.workerToPoll(behind), "it waits behind another")
	require.False(t, hang.Look())
	f.Cancel(behind)
	f.Cancel(hang)
	require.True(t, hang.Look())
}

func TestAResultInTheRingOfADeadWorkerCounts(t *testing.T) {
	f := withRings(t)
	f.known("use-rings")
	f.known("reply-then-die")
	for range 50 {
		f.run("use-rings") // of the one that has taken the place
		require.Equal(t, "done", text(f.glance(f.start("reply-then-die"))))
	}
}

func TestAWorkerThatSpoilsItsRingIsReplaced(t *testing.T) {
	f := withRings(t)
	f.known("spoil-ring")
	o := f.glance(f.start("spoil-ring"))
	require.Equal(t, Crashed, o.Status)
	require.Contains(t, o.Message, "a ring of 8 messages announces 100")
	require.Equal(t, "another", text(f.end(f.submit(f.call("echo", "another")))))
}
