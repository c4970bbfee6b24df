//go:build failpoints

package pool

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// fault is a point and the ways in which the kernel may refuse its calls. Those of shm are tried on their own there;
// here it matters what becomes of tasks.
type fault struct {
	point failpoint.Point
	errs  []error
}

func ways(p failpoint.Point, errnos ...syscall.Errno) fault {
	f := fault{point: p}
	for _, errno := range errnos {
		f.errs = append(f.errs, errno)
	}
	return f
}

var faults = []fault{
	ways(failpoint.PoolSocketpair, syscall.EMFILE, syscall.ENOMEM),
	ways(failpoint.PoolSendmsg, syscall.EINTR, syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM, syscall.ETOOMANYREFS, syscall.EPIPE, syscall.EPERM),
	ways(failpoint.PoolRecvmsg, syscall.EINTR, syscall.EAGAIN, syscall.ENOMEM, syscall.ECONNRESET, syscall.EPERM),
	ways(failpoint.PoolDescriptors, syscall.EMFILE),
	ways(failpoint.PoolClose, syscall.EINTR),
	ways(failpoint.PoolDuplicate, syscall.EMFILE),
	ways(failpoint.PoolEpollCreate, syscall.EMFILE, syscall.ENOMEM),
	ways(failpoint.PoolEpollControl, syscall.ENOMEM, syscall.ENOSPC),
	ways(failpoint.PoolEpollWait, syscall.EINTR, syscall.EINVAL),
	ways(failpoint.PoolEventfd, syscall.EMFILE, syscall.ENOMEM),
	ways(failpoint.PoolEventfdWrite, syscall.EINTR, syscall.EAGAIN),
	ways(failpoint.PoolEventfdRead, syscall.EINTR),
	ways(failpoint.PoolFutexWait, syscall.EINTR, syscall.ENOSYS),
	ways(failpoint.PoolFutexWake, syscall.EFAULT),
	ways(failpoint.PoolYield, syscall.EPERM),
	ways(failpoint.PoolPidfdSignal, syscall.EPERM, syscall.ENOSYS),
	ways(failpoint.PoolPoll, syscall.EINTR, syscall.ENOMEM),
	ways(failpoint.PoolWait, syscall.ECHILD),
	ways(failpoint.PoolOpenNull, syscall.EMFILE, syscall.ENOENT),
	ways(failpoint.PoolGetDescriptorFlags, syscall.EBADF),
	ways(failpoint.PoolStartProcess, syscall.EAGAIN, syscall.ENOMEM, syscall.ENOENT),
	ways(failpoint.PoolKillProcess, syscall.EPERM),
	ways(failpoint.PoolWaitProcess, syscall.ECHILD),
	ways(failpoint.PoolReadFile, syscall.EMFILE),

	ways(failpoint.ShmMemfdCreate, syscall.EMFILE),
	ways(failpoint.ShmReopen, syscall.EMFILE),
	ways(failpoint.ShmAddSeals, syscall.EPERM),
	ways(failpoint.ShmFtruncate, syscall.ENOMEM),
	ways(failpoint.ShmFallocate, syscall.ENOSPC),
	ways(failpoint.ShmMmapShared, syscall.ENOMEM),
	ways(failpoint.ShmMmapPrivate, syscall.ENOMEM),
	ways(failpoint.ShmMunmap, syscall.EINVAL),
	ways(failpoint.ShmSetLease, syscall.EAGAIN),
	ways(failpoint.ShmOpenFile, syscall.EMFILE),
}

// A pool's life with each system call failing in turn, each time it is made and in each plausible way: every task
// ends, with its result or a typed error, nothing is left, and the pool goes on or says why it does not. With -short
// the first and the last call fail, and one between.
func TestFailpoints(t *testing.T) {
	t.Cleanup(failpoint.Disarm)
	calls := callsOfALife(t)
	var table failpoint.Table
	missed := 0
	for _, f := range faults {
		t.Run(f.point.String(), func(t *testing.T) {
			for i, err := range f.errs {
				failed := false
				try := func(nth uint64) {
					end, plan := fails(t, f.point, nth, err)
					if plan.Fired() == 0 { // this life made fewer calls than the one that was counted
						require.Equal(t, failpoint.Survived, end, "%s, call %d, which was not made", f.point, nth)
						missed++
						return
					}
					failed = true
					table.Add(f.point, plan, end)
				}
				nths := chosen(calls[f.point], testing.Short(), i)
				for _, nth := range nths {
					try(nth)
				}
				for nth := nths[len(nths)-1] / 2; nth > 0 && !failed; nth /= 2 { // which is more likely to be made
					try(nth)
				}
				require.True(t, failed, "%s has never failed with %v", f.point, err)
			}
		})
	}
	t.Logf("\n%s%d lives, of which the table has nothing, ended before the call that was to fail", table.Of("pool"), missed)
	for _, p := range failpoint.Of("pool") {
		require.NotZero(t, failpoint.Hits(p), "%s was never passed", p)
		if p != failpoint.PoolShutdown { // it is called after another failure, and what it says is of no use
			require.NotZero(t, table.Failed(p), "%s has never failed", p)
		}
	}
}

// Storms: the kernel says the same a thousand times over before it does what it is asked.
func TestFailpointStormsPass(t *testing.T) {
	t.Cleanup(failpoint.Disarm)
	for _, f := range []fault{
		ways(failpoint.PoolSendmsg, syscall.EINTR, syscall.EAGAIN),
		ways(failpoint.PoolRecvmsg, syscall.EINTR, syscall.EAGAIN, syscall.ENOMEM),
		ways(failpoint.PoolEpollWait, syscall.EINTR),
		ways(failpoint.PoolEventfdWrite, syscall.EINTR),
		ways(failpoint.PoolEventfdRead, syscall.EINTR),
		ways(failpoint.PoolPoll, syscall.EINTR),
	} {
		for _, err := range f.errs {
			t.Run(fmt.Sprintf("%s %v", f.point, err), func(t *testing.T) {
				before := holdings(t)
				plan := failpoint.Arm(f.point, 1, 1000, err)
				life := &life{t: t, plan: plan, reason: err}
				life.live()
				require.True(t, life.close(), "it goes on")
				failpoint.Disarm()
				require.NotZero(t, plan.Fired())
				require.Empty(t, life.errs)
				before.unchanged(life)
			})
		}
	}
}

// callsOfALife counts how often the scenario passes each point.
func callsOfALife(t *testing.T) map[failpoint.Point]uint64 {
	t.Helper()
	plans := map[failpoint.Point]*failpoint.Plan{}
	for _, f := range faults {
		plans[f.point] = failpoint.Arm(f.point, 0, 0, nil)
	}
	before := holdings(t)
	life := &life{t: t}
	life.live()
	require.Empty(t, life.errs, "without faults")
	require.True(t, life.close())
	before.unchanged(life)
	failpoint.Disarm()
	calls := map[failpoint.Point]uint64{}
	for p, plan := range plans {
		calls[p] = plan.Seen()
		require.NotZero(t, calls[p], "%s is not passed", p)
	}
	return calls
}

// chosen lists which calls are to fail: all, or a few, which differ from way to way.
func chosen(calls uint64, few bool, way int) (nths []uint64) {
	if few && calls > 3 {
		if way > 0 {
			return []uint64{1 + calls*uint64(way)/8%calls}
		}
		return []uint64{1, calls/2 + 1, calls}
	}
	// How often sockets are polled depends on chance, and can be thousands of times.
	for nth := uint64(1); nth <= calls; nth += 1 + calls/mostCalls {
		nths = append(nths, nth)
	}
	return nths
}

const mostCalls = 100

// fails lives one life with one failure.
func fails(t *testing.T, p failpoint.Point, nth uint64, err error) (failpoint.End, *failpoint.Plan) {
	t.Helper()
	before := holdings(t)
	plan := failpoint.Arm(p, nth, 1, err)
	life := &life{t: t, what: fmt.Sprintf("%s, call %d: %v", p, nth, err), plan: plan, reason: err}
	life.live()
	goesOn := life.close()
	failpoint.Disarm()
	before.unchanged(life)
	switch {
	case !goesOn:
		return failpoint.Broken, plan
	case len(life.errs) > 0:
		return failpoint.Refused, plan
	}
	return failpoint.Survived, plan
}

// life is the scenario: everything that one does with a pool.
type life struct {
	t      *testing.T
	what   string // fails in it
	plan   *failpoint.Plan
	reason error // that the kernel gives; nil: nothing fails
	pool   *Pool
	heap   *shm.Heap
	errs   []error // that operations and tasks gave

	mu     sync.Mutex // guards poison
	poison *guard.Panic
}

// live does everything once; what fails is noted, and the rest is done.
func (l *life) live() {
	l.t.Helper()
	l.heap = shm.NewHeap(shm.HeapOptions{Limit: 64 << 20, OnDrop: func(s *shm.Segment) { l.pool.Retire(s) }})
	pool, err := New(Options{
		Name: "test", Python: os.Args[0], WorkerMain: "unused",
		Env:     append(os.Environ(), roleVariable+"=zygote", "GORACE=atexit_sleep_ms=0"),
		Workers: 1, Heap: l.heap, OnPanic: l.caught,
	})
	if l.bad(err) {
		return
	}
	l.pool = pool
	l.guarded(func() { l.echo() })
	l.guarded(func() { l.announced() })
	l.guarded(func() { l.large() })
	l.guarded(func() { l.arrays() })
	l.guarded(func() { l.ends() })
	l.guarded(func() { l.watched() })
	l.guarded(func() { pool.Stats() })
}

// close ends the pool, and reports whether it could have gone on.
func (l *life) close() (goesOn bool) {
	l.t.Helper()
	if l.pool == nil {
		return true
	}
	l.guarded(func() { goesOn = l.goesOn() })
	l.guarded(func() { l.pool.Close(0) })
	l.guarded(func() { l.heap.Close() })
	return goesOn
}

// goesOn reports whether tasks can be run; else there is a reason.
func (l *life) goesOn() bool {
	l.t.Helper()
	before := l.fired()
	o, err := l.run("echo", "still here", nil)
	if err != nil && l.fired() > before && !l.poisoned() { // it is this task that something failed for, the next one is not concerned
		l.bad(err)
		o, err = l.run("echo", "still here", nil)
	}
	if err == nil {
		require.Equal(l.t, "still here", text(o), l.what)
		return true
	}
	call, err := l.call("echo", "", nil)
	require.NoError(l.t, err, l.what)
	_, err = l.pool.Submit(call)
	var broken *BrokenError
	switch {
	case errors.As(err, &broken):
		l.saysWhy(broken)
	default:
		require.ErrorAs(l.t, err, new(*guard.Panic), "%s: one task was refused and the next was not", l.what)
	}
	return false
}

// fired is how many calls have failed so far.
func (l *life) fired() uint64 {
	if l.plan == nil {
		return 0
	}
	return l.plan.Fired()
}

func (l *life) poisoned() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.poison != nil
}

// caught poisons the pool, as the engine does.
func (l *life) caught(p *guard.Panic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poison == nil {
		l.poison = p
		guard.Go("poisoning", func(*guard.Panic) {}, func() { l.pool.Fail(p) })
	}
}

// guarded runs a step as the exports do: a panic poisons the pool.
func (l *life) guarded(f func()) {
	l.t.Helper()
	if p := guard.Catch("a step", f); p != nil {
		l.caught(p)
	}
}

// bad notes an error, which must be of a known type and say why.
func (l *life) bad(err error) bool {
	l.t.Helper()
	if err == nil {
		return false
	}
	typed := errors.As(err, new(*shm.LimitError)) || errors.As(err, new(*shm.KernelError)) || errors.As(err, new(*shm.FullError)) ||
		errors.As(err, new(*BrokenError)) || errors.As(err, new(*guard.Panic)) || errors.As(err, new(*taskError))
	require.True(l.t, typed, "%s: %T is not a type that callers know: %v", l.what, err, err)
	l.saysWhy(err)
	l.errs = append(l.errs, err)
	return true
}

// saysWhy: what the kernel said can be read. EPIPE is the end of a stream as well, which is told in other words.
func (l *life) saysWhy(err error) {
	l.t.Helper()
	if l.reason != nil && !errors.Is(l.reason, syscall.EPIPE) {
		require.ErrorContains(l.t, err, l.reason.Error(), "%s: the kernel's reason is missing", l.what)
	}
}

// taskError is the outcome of a task that has not the result it should have.
type taskError struct{ *Outcome }

func (e *taskError) Error() string {
	if e.Status == OK { // its worker was refused something, and gave that back
		return text(e.Outcome)
	}
	return fmt.Sprint(e.Status, " ", e.Message)
}

func (l *life) call(target, input string, source Source) (Call, error) {
	v, err := NewValue(l.heap, CodecRaw, [][]byte{[]byte(input)}, "input")
	return Call{Target: target, Input: v, OutCodec: CodecRaw, Learn: true, Source: source}, err
}

// run waits for a task's end; its outcome goes when the test ends. A failure says why.
func (l *life) run(target, input string, prepare func(*Call)) (*Outcome, error) {
	l.t.Helper()
	call, err := l.call(target, input, nil)
	if err != nil {
		return nil, err
	}
	if prepare != nil {
		prepare(&call)
	}
	task, err := l.pool.Submit(call)
	if err != nil {
		return nil, err
	}
	defer task.Release()
	if !task.Wait(60 * time.Second) {
		l.t.Fatalf("%s: %s did not end; %+v", l.what, target, l.pool.Stats())
	}
	o := *task.Outcome()
	if o.Status == OK {
		return &o, nil
	}
	require.NotEmpty(l.t, o.Message, "%s: %s ended with %d and no reason", l.what, target, o.Status)
	if o.Status == Failed {
		require.Contains(l.t, []string{"OSError", "MemoryError"}, o.Type, l.what)
	}
	return &o, &taskError{&o}
}

func (l *life) echo() {
	l.t.Helper()
	if o, err := l.run("echo", "hello", nil); !l.bad(err) {
		require.Equal(l.t, "hello", text(o), l.what)
	}
}

// announced: the end of a task wakes who waits for a descriptor.
func (l *life) announced() {
	l.t.Helper()
	q, err := NewQueue()
	if l.bad(err) {
		return
	}
	defer q.Close()
	_, err = l.run("echo", "", func(c *Call) { c.Queue, c.Handle = q, 1 })
	if l.bad(err); err != nil && !errors.As(err, new(*taskError)) {
		return // it was not taken in
	}
	fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 60_000)
	require.NoError(l.t, err)
	require.Equal(l.t, 1, n, "%s: nobody was woken", l.what)
	events := make([]Event, 2)
	require.Equal(l.t, 1, q.Take(events), l.what)
	settles(l.t, "the empty queue is quiet", func() bool {
		require.Zero(l.t, q.Take(events), l.what)
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 0
	})
}

// large: inputs and results in segments.
func (l *life) large() {
	l.t.Helper()
	if o, err := l.run("sum-input", strings.Repeat("\x01", 100_000), nil); !l.bad(err) {
		require.Equal(l.t, "100000", text(o), l.what)
	}
	o, err := l.run("large", "", nil)
	switch {
	case l.bad(err):
	case o.Value.Codec == CodecRaw && len(o.Value.Inline) > 0: // what the worker was told instead of a segment
		require.Contains(l.t, text(o), "message", l.what)
		l.bad(&taskError{o})
	}
}

// arrays: a key that a task fetches, and one that goes along.
func (l *life) arrays() {
	l.t.Helper()
	seg, err := l.heap.Create(1<<20, "x") // large enough for the machine to be looked at
	if l.bad(err) {
		return
	}
	defer seg.Unref()
	if l.bad(seg.Freeze()) {
		return
	}
	x := &Array{Segment: seg, Key: "x", Version: 1, Layout: Layout{Descr: "<u8", Itemsize: 8, Shape: []int64{1}, Strides: []int64{8}}}
	source := &fakeSource{arrays: map[string]*Array{"x": x}}
	o, err := l.run("fetch x", "", func(c *Call) { c.Source = source })
	if !l.bad(err) && text(o) != "x [1] 0" {
		require.True(l.t, strings.HasPrefix(text(o), "error shm: "), "%s: %s", l.what, text(o))
		l.bad(&taskError{o})
	}
	o, err = l.run("given", "", func(c *Call) { c.Source, c.Keys = source, []string{"x"} })
	if !l.bad(err) { // without a descriptor for it the array stays at home, to be fetched
		require.Contains(l.t, []string{"x", ""}, text(o), l.what)
	}
}

// ends: workers that die, and one that has to be killed.
func (l *life) ends() {
	l.t.Helper()
	o, err := l.run("kill", "", nil)
	l.expect(Crashed, o, err)
	o, err = l.run("hang", "", func(c *Call) { c.Timeout = time.Millisecond })
	l.expect(TimedOut, o, err)
}

// expect notes an end other than the one that was provoked.
func (l *life) expect(status Status, o *Outcome, err error) {
	l.t.Helper()
	if o == nil || o.Status != status {
		require.Error(l.t, err, l.what)
		l.bad(err)
	}
}

// watched: a caller polls the sockets itself, while the reactor stands back.
func (l *life) watched() {
	l.t.Helper()
	for range 8 { // the function is known to be short after some
		call, err := l.call("echo", "x", nil)
		if l.bad(err) {
			return
		}
		task, err := l.pool.Submit(call)
		if l.bad(err) {
			return
		}
		for deadline := time.Now().Add(60 * time.Second); !task.Look(); runtime.Gosched() {
			if time.Now().After(deadline) {
				l.t.Fatalf("%s: a task that is looked at does not end", l.what)
			}
		}
		if o := *task.Outcome(); o.Status != OK {
			l.bad(&taskError{&o})
		}
		task.Release()
	}
}

// held is what a life must leave as it was.
type held struct {
	t          *testing.T
	files      string
	goroutines goleak.Option
}

func holdings(t *testing.T) held {
	t.Helper()
	return held{t, openFiles(), goleak.IgnoreCurrent()}
}

// unchanged waits until nothing more is there than before; what was released may still be on its way.
func (h held) unchanged(l *life) {
	h.t.Helper()
	l.heap.Close()
	settles(h.t, l.what+": nothing in the heap", func() bool { return l.heap.Stats().InUse == 0 })
	settles(h.t, l.what+": no processes", func() bool { return len(ownProcesses()) == 0 && !hasChild() })
	settles(h.t, l.what+": no goroutines", func() bool {
		return goleak.Find(h.goroutines, goleak.IgnoreTopFunction("github.com/theus-project/theus-go/pool.init.func1.1")) == nil
	})
	settles(h.t, fmt.Sprintf("%s: the same descriptors and maps; now %s\nbefore %s", l.what, openFiles(), h.files), func() bool { return openFiles() == h.files })
	if l.poison != nil { // by what was injected, not by what came of it
		_, bug := l.poison.Value.(runtime.Error)
		require.False(h.t, bug, "%s: %v\n%s", l.what, l.poison, l.poison.Stack)
	}
}

// settles waits for what is under way to end; only a bug reaches its deadline.
func settles(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 60*time.Second, time.Millisecond, "never happened: %s", what)
}
