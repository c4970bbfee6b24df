package pool

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
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

// framesByRing counts the frames that the host has put into its ring, and those that the worker has.
func (f *fixture) framesByRing() (host, worker uint64) {
	f.t.Helper()
	count := func(ring int64) uint64 {
		var put [8]byte
		_, err := unix.Pread(f.workers[0].page.FD(), put[:], ring)
		require.NoError(f.t, err)
		return binary.LittleEndian.Uint64(put[:])
	}
	return count(0), count(ringBytes)
}

// glance looks until the task has ended.
func (f *fixture) glance(task *Task) *Outcome {
	f.t.Helper()
	eventually(f.t, "looking finds its end", task.Look)
	return f.end(task)
}

func TestFramesGoByRingsToWhoIsAwake(t *testing.T) {
	f := withRings(t)
	file := filepath.Join(t.TempDir(), "file")
	busy := "wait-for " + file
	f.known(busy)
	running := f.start(busy)
	eventually(t, "the worker is busy", func() bool { return f.started(running) })
	before, _ := f.framesByRing()
	ahead := f.submit(f.call("echo", "sent ahead"))
	after, _ := f.framesByRing()
	require.Equal(t, before+1, after)
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	f.end(running)
	require.Equal(t, "sent ahead", text(f.end(ahead)))
}

func TestResultsComeByTheRingOrBySocketWhicheverIsLookedAt(t *testing.T) {
	f := withRings(t)
	for i := range 200 {
		word := fmt.Sprint(i)
		if i%3 == 0 {
			word = string(make([]byte, 10_000)) // fits into no slot
		}
		require.Equal(t, word, text(f.glance(f.submit(f.call("echo", word)))))
	}
	_, before := f.framesByRing()
	for range 20 {
		f.end(f.submit(f.call("echo", "")))
	}
	_, after := f.framesByRing()
	require.Equal(t, before, after, "nobody looked, and a result came by the ring")
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

// attend says that somebody looks at the worker's ring, which nobody does.
func (f *fixture) attend() *worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.workers[0]
	w.look(true)
	return w
}

func TestAResultInTheRingOfADeadWorkerCounts(t *testing.T) {
	f := withRings(t)
	f.attend()
	require.Equal(t, "done", text(f.run("reply-then-die")))
}

func TestWhoLooksNoMoreReadsWhatWasPutMeanwhile(t *testing.T) {
	f := withRings(t)
	w := f.attend()
	task := f.submit(f.call("echo", "x"))
	eventually(t, "it has answered", w.page.Pending)
	require.False(t, task.Ended(), "nobody has read that")
	f.leave(w)
	require.True(t, task.Ended())
}

func TestAWorkerThatSpoilsItsRingIsReplaced(t *testing.T) {
	f := withRings(t)
	f.known("spoil-ring")
	o := f.glance(f.start("spoil-ring"))
	require.Equal(t, Crashed, o.Status)
	require.Contains(t, o.Message, "a ring of 8 messages announces 100")
	require.Equal(t, "another", text(f.end(f.submit(f.call("echo", "another")))))
}
