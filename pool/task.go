package pool

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
)

// Status says how a task ended; the numbers are those of theus.h.
type Status int32

// The ends of a task.
const (
	OK        Status = 0
	Failed    Status = 200
	Crashed   Status = 201
	TimedOut  Status = 202
	Cancelled Status = 203
	NoWorkers Status = 103
	Poisoned  Status = 301
)

// Presence says whether a heavy key can be read.
type Presence int

// What Source.Heavy finds.
const (
	Present Presence = iota
	Absent
	Unpublished
)

// Source is the version of the state that a task reads. The engine implements it; it stays pinned until Release.
type Source interface {
	Version() uint64
	// Heavy returns a key's array with a reference for the caller.
	Heavy(key string) (*Array, Presence)
	// Keys lists all heavy keys, sorted.
	Keys() []string
	// Nearest lists the keys most like a missing one.
	Nearest(key string) []string
	// Export encodes all data at or below a path (codec state).
	Export(path string) ([]byte, error)
	Release()
}

// Call is what is to run. Submit takes over Input, Arrays and Source, also when it fails.
type Call struct {
	Function *Function // nil: Target, "package.module:function"
	Target   string
	Input    Value
	OutCodec uint8
	Arrays   []*Array // that the input refers to
	Keys     []string // heavy keys to send along
	Learn    bool     // send along what this function read before
	Source   Source
	Timeout  time.Duration
	Retries  int
	RNGKey   uint64
	Queue    *Queue
	Handle   uint64 // the caller's name for the task, given back in its event
	Tag      uint64
}

// Outcome is how a task ended and what came of it.
type Outcome struct {
	Status  Status
	Value   Value // the result, or after Failed the pickled exception (codec none: it cannot be)
	Arrays  []*Array
	Message string // of a failure: what happened, in one line

	// after Failed
	Type, Text, Traceback string
	// after Crashed
	Task              string
	PID, Signal, Exit int
	Reason            string
	OOM               bool   // the kernel ended the worker for want of memory
	PeakRSS           uint64 // of the worker, in bytes; 0: unknown
}

func (o *Outcome) release() {
	o.Value.Release()
	for _, a := range o.Arrays {
		a.Unref()
	}
	o.Arrays = nil
}

// Task is one execution. Its fields are guarded by Pool.mu, but for done, ended, over and waiting.
type Task struct {
	id      uint64
	call    Call
	name    string // for messages
	pool    *Pool
	done    chan struct{} // closed at the end
	ended   atomic.Bool   // set when what it held is given back
	over    atomic.Uint32 // 1 when its end is announced, with done
	waiting atomic.Int32  // threads that sleep on over
	outcome Outcome       // written before ended is set; its holdings are given up by Release

	// The pool is through with it. Until ended is set nobody else knows.
	finished bool

	worker *worker
	again  bool                    // it had begun in a worker that has died
	read   map[string]struct{}     // heavy keys it was given, for the message of a crash
	grants map[uint64]*shm.Segment // segments that it asked for, one reference each
	// Arenas that its worker was told of, one reference each. The version that it reads keeps the arrays in them, but
	// not where they are: they would be moved while the worker looks for them where it was told.
	pinned   map[uint64]*shm.Segment
	sent     []*Array // along with it, one reference each: given back before its end is announced, like all that it holds
	timer    *time.Timer
	released bool
}

// Done is closed when the task has ended.
func (t *Task) Done() <-chan struct{} { return t.done }

// Ended reports whether it has, without waiting.
func (t *Task) Ended() bool { return t.ended.Load() }

// Wait waits for the end, so long at most, or (negative) for as long as it takes, and reports whether it has come. It polls for a
// moment if the end is likely to come right now; see Pool.Look. Then this thread sleeps in the kernel and is woken by the one that
// brings the end: by way of a channel a third thread would have to find the goroutine, and Go has it sleep 3 µs before it takes a
// goroutine from another thread, of which the kernel makes 60 (a task of 0.3 ms was known of 0.1 ms later).
func (t *Task) Wait(timeout time.Duration) bool {
	if timeout == 0 {
		return t.Ended()
	}
	if t.Look() {
		return true
	}
	t.waiting.Add(1) // before the last look at over: whoever sets that looks at this afterwards
	defer t.waiting.Add(-1)
	deadline := time.Now().Add(timeout)
	for t.over.Load() == 0 {
		left := time.Duration(-1)
		if timeout > 0 {
			if left = time.Until(deadline); left <= 0 {
				return false
			}
		}
		if awaitChange(&t.over, left) != nil {
			return t.waitForChannel(left)
		}
	}
	return true
}

// waitForChannel is Wait where the kernel does not let threads sleep on memory.
func (t *Task) waitForChannel(timeout time.Duration) bool {
	if timeout < 0 {
		<-t.done
		return true
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-t.done:
		return true
	case <-timer.C:
		return false
	}
}

// wakeWaiting wakes the threads that wait for the end, sooner or later: they have nothing else to be woken by.
func (t *Task) wakeWaiting() {
	if t.waiting.Load() == 0 || wakeAll(&t.over) == nil {
		return
	}
	guard.AfterFunc(time.Millisecond, "task end", t.pool.options.OnPanic, t.wakeWaiting)
}

// Look reports whether it has ended, and polls for a moment if it is likely to end right now; see Pool.Look.
func (t *Task) Look() bool { return t.pool.Look(t) }

// Announce has its end announced by q, at once if it has ended already.
func (t *Task) Announce(q *Queue, handle, tag uint64) {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	if t.Ended() {
		q.push(Event{Handle: handle, Tag: tag, Status: t.outcome.Status})
		return
	}
	t.call.Queue, t.call.Handle, t.call.Tag = q, handle, tag
}

// Tag is the caller's.
func (t *Task) Tag() uint64 { return t.call.Tag }

// Name is the function's, for messages.
func (t *Task) Name() string { return t.name }

// Outcome is valid once Done is closed and until Release.
func (t *Task) Outcome() *Outcome { return &t.outcome }

// Release gives up the result; a task that still runs goes on without anyone to see its end.
func (t *Task) Release() {
	t.pool.mu.Lock()
	if !t.released {
		t.released = true
		if t.Ended() {
			t.pool.after(t.outcome.release)
		}
	}
	t.pool.unlock()
}

// pin keeps an array of the task's version where its worker is told that it is. The caller has a reference to the array.
func (t *Task) pin(a *Array) {
	if a.Slot == nil || t.pinned[a.Segment.ID()] != nil {
		return
	}
	if t.pinned == nil {
		t.pinned = map[uint64]*shm.Segment{}
	}
	a.Segment.Ref()
	t.pinned[a.Segment.ID()] = a.Segment
}

// takeHoldings gives a function that lets go of what the task asked for and was told of, for when the pool is unlocked.
func (t *Task) takeHoldings() func() {
	grants, pinned, sent := t.grants, t.pinned, t.sent
	t.grants, t.pinned, t.sent = nil, nil, nil
	return func() {
		for _, a := range sent {
			a.Unref()
		}
		for _, seg := range grants {
			seg.Unref()
		}
		for _, seg := range pinned {
			seg.Unref()
		}
	}
}

// removeGrant takes one granted segment out, with its reference.
func (t *Task) removeGrant(id uint64) *shm.Segment {
	seg := t.grants[id]
	delete(t.grants, id)
	return seg
}

// Function is code that workers receive once each.
type Function struct {
	id      uint64
	name    string
	record  Value
	learned []string // heavy keys its tasks fetched; guarded by Pool.mu
	// longest decays towards recent run times: only functions known to be short are sent ahead. Guarded by Pool.mu.
	longest time.Duration
	known   bool
	instant uint8 // of its last runs, the newest lowest, a bit each: it was an instantTask. Guarded by Pool.mu.
	uses    int   // the handle and tasks; guarded by Pool.mu
}

// Name is for messages.
func (f *Function) Name() string { return f.name }

const maxLearned = 16

func (f *Function) learn(key string) {
	for _, k := range f.learned {
		if k == key {
			return
		}
	}
	if len(f.learned) < maxLearned {
		f.learned = append(f.learned, key)
	}
}

func (f *Function) ran(d time.Duration) {
	f.known = true
	f.longest = max(d, f.longest*7/8)
	f.instant <<= 1
	if d < instantTask {
		f.instant |= 1
	}
}

// usuallyInstant: of its last eight runs at least half were. A single slow one, the first that maps an array say, tells nothing of
// the next: counting the longest, such tasks were slept for, ran slower on processors that had gone to sleep, and so went on being
// slept for (300 µs instead of 80).
func (f *Function) usuallyInstant() bool { return bits.OnesCount8(f.instant) >= 4 }

// ahead is how many of its tasks may wait in a worker behind the one that runs. With one the worker often has to sleep until
// the host has read its answer and sent the next; with two it hardly ever has (a thousand no-ops at once: 50 µs each instead of
// 65), and more than that gains nothing. What waits there waits for a slow task, should there be one, though another
// worker is idle.
func (f *Function) ahead() int {
	switch {
	case !f.short():
		return 0
	case f.usuallyInstant():
		return 2
	}
	return 1
}

// short: two of these may share a worker without the second waiting noticeably.
func (f *Function) short() bool { return f.known && f.longest < time.Millisecond }
