package pool

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// worker is one worker process as the host sees it. Guarded by Pool.mu but for conn's incoming half.
type worker struct {
	pool   *Pool
	id     uint64 // never reused
	index  int    // 0 … workers-1, what ctx.worker.index says
	zygote *zygote
	conn   *conn
	token  uint64
	page   *shm.Page // what it runs, and the rings

	pid       int
	pidfd     int  // -1 until the zygote has sent it
	pidfdLost bool // it was sent, but this process had no descriptor left

	ready     bool
	condemned bool // SIGKILL was sent
	assigned  []*Task
	lookers   int                         // callers that look at its ring
	known     map[uint64]*shm.Segment     // segments whose descriptor it was sent and has not let go of
	reserved  map[uint64]*shm.Reservation // for its private maps
	functions map[uint64]bool
	done      uint64

	eof        bool
	ownEnd     bool // the stream had ended before the host sent SIGKILL
	exited     bool
	waitStatus unix.WaitStatus
	peakRSS    uint64 // by the zygote's report; 0: unknown
	judged     bool
	groups     shm.MemoryGroups
	oom        *shm.OOMKill // the kernel ended it for want of memory
	notOOM     bool         // it died by a SIGKILL that was not for want of memory
	fault      error        // what it did that cannot be gone on with
	timer      *time.Timer  // bounds start, and the wait for EXITED
	watched    watched
	killed     bool // SIGKILL was delivered, or it had ended before
}

const (
	statusTaskMask = 1<<56 - 1
	statusPhase    = 56
	phaseCutOff    = 5 // it found its socket closed
)

// Flags of TASK.
const (
	taskPoll  = 1 // a processor is left to poll on for what comes after it
	taskAgain = 2 // it had begun before, in a worker that has died
)

// launch asks the zygote for a worker. mu is held.
func (p *Pool) launch(z *zygote, index int) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	page, err := shm.NewPage()
	if err != nil {
		closeAll([]int{ours, theirs})
		return err
	}
	pageFD, err := duplicate(page.FD())
	if err != nil {
		closeAll([]int{ours, theirs})
		page.Close()
		return fmt.Errorf("dup: %w", err)
	}
	p.lastWorker++
	w := &worker{
		pool: p, id: p.lastWorker, index: index, zygote: z, page: page, pidfd: -1,
		conn:      &conn{fd: ours, maxPayload: maxPayload, rings: page},
		known:     map[uint64]*shm.Segment{},
		reserved:  map[uint64]*shm.Reservation{},
		functions: map[uint64]bool{},
		watched:   watched{retired: map[uint64]struct{}{}},
	}
	if w.token, err = p.reactor.add(w); err != nil {
		closeAll([]int{theirs, pageFD})
		w.conn.close()
		page.Close()
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	p.workers[index] = w
	var e encoder
	e.u32(uint32(index))
	z.send(frameSpawn, w.id, e.buf, theirs, pageFD)
	limit := spawnTimeout
	if z.mode == modeExec { // the worker imports what is to be preloaded itself
		limit = readyTimeout
	}
	w.awaitReady(limit, limit)
	return nil
}

// awaitReady bounds the start of a worker, like zygote.awaitReady. mu is held.
func (w *worker) awaitReady(left, limit time.Duration) {
	w.within(min(left, stopTimeout), func() {
		switch {
		case w.ready:
		case w.pid != 0 && stopped(w.pid):
			w.fault = errors.New("was stopped (SIGSTOP) before it was ready")
			w.kill()
		case left <= stopTimeout && w.pidfd >= 0 && !w.condemned: // the zygote answers; this one alone does not
			w.fault = fmt.Errorf("was not ready after %v", limit)
			w.kill()
			w.awaitReport()
		case left <= stopTimeout:
			w.zygote.hung(fmt.Sprintf("worker %d was not ready after %v", w.index, limit))
		default:
			w.awaitReady(left-stopTimeout, limit)
		}
	})
}

func duplicate(fd int) (int, error) {
	if err := failpoint.Fail(failpoint.PoolDuplicate); err != nil {
		return -1, err
	}
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}

// launchOrGoOn launches a worker; without descriptors for it the pool goes on with those that it has. mu is held.
func (p *Pool) launchOrGoOn(z *zygote, index int) {
	if err := p.launch(z, index); err != nil {
		p.goOnWithout(z, index, err)
	}
}

// goOnWithout leaves a worker's place empty for a while: what it lacked, descriptors or processes, others may give back. If
// there is no other worker it gives up after some tries. mu is held.
func (p *Pool) goOnWithout(z *zygote, index int, err error) {
	delay := startAgain
	if slices.ContainsFunc(p.workers, func(w *worker) bool { return w != nil }) {
		delay <<= min(p.lacking[index], mostDoublings) // nobody waits for this one
	} else {
		p.failures++
		if p.failures >= maxWorkerFailures {
			p.giveUp(withAdvice(err))
			return
		}
	}
	if p.lacking[index]++; p.lacking[index] == 1 {
		p.log(LogRecord{Worker: index, Level: 30, Logger: "theus", Message: fmt.Sprintf("worker %d cannot be started for now, the pool goes on without it: %s", index, withAdvice(err))})
	}
	guard.AfterFunc(delay, "worker start", p.options.OnPanic, func() {
		p.mu.Lock()
		defer p.unlock()
		if p.zygote == z && z.ready && !z.failed && !p.Ending() && p.broken == nil && p.workers[index] == nil {
			p.launchOrGoOn(z, index)
		}
	})
}

// within runs f, with mu held, unless the timer is replaced or stopped first.
func (w *worker) within(d time.Duration, f func()) {
	w.stopTimer()
	var timer *time.Timer
	timer = guard.AfterFunc(d, "worker deadline", w.pool.options.OnPanic, func() {
		w.pool.mu.Lock()
		defer w.pool.unlock()
		if w.timer == timer && !w.judged {
			f()
		}
	})
	w.timer = timer
}

func (w *worker) stopTimer() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

func (w *worker) connection() *conn { return w.conn }

// send queues a frame for the worker. mu is held.
func (w *worker) send(kind frameType, id uint64, payload []byte, fds ...int) {
	if w.conn.send(kind, id, payload, fds...) {
		w.pool.flushLater(w.conn, w.token)
	}
}

// sendFunction ships code. mu is held.
func (w *worker) sendFunction(f *Function) {
	var e encoder
	e.value(&f.record)
	fds, err := w.valueFDs(&f.record)
	if err != nil {
		// The worker asks for a function that it lacks; that answer carries the error.
		delete(w.functions, f.id)
		return
	}
	w.send(frameFunction, f.id, e.buf, fds...)
}

// valueFDs opens the descriptor of a value in a segment and notes that the worker has it.
func (w *worker) valueFDs(v *Value) ([]int, error) {
	if v.Segment == nil {
		return nil, nil
	}
	fd, err := v.Segment.ReaderFD()
	if err != nil {
		return nil, err
	}
	w.note(v.Segment)
	return []int{fd}, nil
}

// note remembers that the worker may map a segment, so that it is told when that is retired.
func (w *worker) note(seg *shm.Segment) {
	if w.known[seg.ID()] == nil {
		w.known[seg.ID()] = seg
		seg.AddRemote()
	}
}

// sendTask sends a task with the arrays that it will probably read. mu is held.
func (w *worker) sendTask(t *Task) {
	fds, err := w.valueFDs(&t.call.Input)
	if err != nil {
		w.pool.refuse(w, t, err)
		return
	}
	arrays := t.foreseen()
	var described encoder
	n := 0
	input := encoder{make([]byte, 0, 128)} // mostly enough; to grow step by step takes longer than all else here
	input.value(&t.call.Input)
	room := maxPayload - 4096 - len(input.buf) - len(t.call.Target)
	for i, a := range arrays {
		// The key of an array that the input refers to may be another one's by now.
		has := flag(i >= len(t.call.Arrays), arrayOfKey)
		if len(described.buf)+arraySize(a) <= room && w.describe(&described, a, has, &fds) {
			t.pin(a)
			n++
		}
	}
	if len(arrays) > 0 {
		t.sent = append(t.sent, arrays...)
		w.pool.holders[t] = struct{}{}
	}
	e := encoder{make([]byte, 0, 64+len(t.call.Target)+len(input.buf)+len(described.buf))}
	e.u64(t.call.Function.id)
	e.u64(t.version())
	e.u64(t.call.RNGKey)
	e.u8(t.call.OutCodec)
	e.u8(flag(w.pool.processorLeft(), taskPoll) | flag(t.again, taskAgain))
	e.u16(uint16(n))
	e.str(t.call.Target)
	e.buf = append(e.buf, input.buf...)
	e.buf = append(e.buf, described.buf...)
	w.send(frameTask, t.id, e.buf, fds...)
}

// describe appends an array, with a descriptor if the worker lacks the segment. False: there is no room for that.
func (w *worker) describe(e *encoder, a *Array, has uint8, fds *[]int) bool {
	// An output is fetched when its task has begun: it is to be writable for that time alone.
	if w.known[a.Segment.ID()] != nil || a.Output {
		e.array(a, false, has)
		return true
	}
	if len(*fds) > maxTaskDescriptors {
		return false
	}
	fd, err := a.Segment.ReaderFD()
	if err != nil {
		return false // fetched when used; that answer carries the error
	}
	w.note(a.Segment)
	*fds = append(*fds, fd)
	e.array(a, true, has)
	return true
}

func (t *Task) version() uint64 {
	if t.call.Source == nil {
		return 0
	}
	return t.call.Source.Version()
}

// foreseen lists the arrays to send along: those its input refers to, all first, those it declares, those its function read before.
func (t *Task) foreseen() []*Array {
	var arrays []*Array
	for _, a := range t.call.Arrays {
		arrays = append(arrays, a.Ref())
	}
	keys := t.call.Keys
	if t.call.Learn {
		keys = append(keys[:len(keys):len(keys)], t.call.Function.learned...)
	}
	for _, k := range keys {
		if _, twice := t.read[k]; twice || t.call.Source == nil {
			continue
		}
		if a, presence := t.call.Source.Heavy(k); presence == Present {
			t.reads(k)
			arrays = append(arrays, a)
		}
	}
	return arrays
}

func (t *Task) reads(key string) {
	if t.read == nil {
		t.read = map[string]struct{}{}
	}
	t.read[key] = struct{}{}
}

// refuse ends a task that cannot be sent: the machine lacks descriptors, say.
func (p *Pool) refuse(w *worker, t *Task, err error) {
	p.completed(w, t.id)
	p.finish(t, Outcome{Status: Failed, Type: "OSError", Text: err.Error(), Message: "the task's input cannot be sent to a worker: " + err.Error()})
}

// running is the task that the worker has started and not ended, by its status page; 0: none.
func (w *worker) running() uint64 { return w.page.Load() & statusTaskMask }

func (w *worker) stateName() string {
	switch {
	case !w.ready:
		return "starting"
	case w.condemned:
		return "ending"
	case w.watched.stopped > 0:
		return "stopped"
	case len(w.assigned) > 0:
		return "busy"
	}
	return "idle"
}
