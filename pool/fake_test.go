package pool

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The pool is tested without Python: this test binary plays the zygote and the workers, started by the pool itself. They speak
// the real protocol; what a task does is told by its target's name.

const roleVariable = "THEUS_POOL_TEST_ROLE"

// roles are what else this binary may play, by name; builds with tags add to them.
var roles = map[string]func(){}

func TestMain(m *testing.M) {
	name := os.Getenv(roleVariable)
	if play, found := roles[name]; found {
		play()
	}
	switch name {
	case "zygote":
		fakeZygote(false)
	case "mute zygote":
		fakeZygote(true)
	case "barren zygote":
		c := newPeer(3)
		c.read()
		c.write(frameZygoteReady, 0, []byte(`{}`))
		c.read() // SPAWN
		os.Exit(7)
	case "silent zygote":
		select {}
	case "dying zygote":
		os.Exit(7)
	case "worker":
		fakeWorker()
	default:
		_ = os.Setenv(hostVariable, strconv.Itoa(os.Getpid()))
		spawner() // its goroutine never ends, by design
		goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.IgnoreTopFunction("github.com/theus-project/theus-go/pool.init.func1.1"))
	}
}

// peerConn is a blocking conn for the fakes.
type peerConn struct{ conn }

func newPeer(fd int) *peerConn { return &peerConn{conn{fd: fd, maxPayload: maxConfig}} }

func (c *peerConn) read() *frame {
	for {
		if f, err := c.next(); err != nil {
			panic(err)
		} else if f != nil {
			return f
		}
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, -1)
		if _, err := c.receive(); err != nil {
			os.Exit(0)
		}
	}
}

func (c *peerConn) write(kind frameType, id uint64, payload []byte, fds ...int) {
	for pending := c.send(kind, id, payload, fds...); pending; pending = c.flush() {
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
		_, _ = unix.Poll(fds, -1)
	}
}

// fakeZygote starts workers; a mute one does not say so.
func fakeZygote(mute bool) {
	c := newPeer(3)
	var mu sync.Mutex // guards writes to c
	if f := c.read(); f.kind != frameConfig {
		panic("CONFIG must come first")
	}
	c.write(frameZygoteReady, 0, []byte(`{"pid":0,"python":"fake","mode":"exec","warnings":["a warning"]}`))
	for {
		f := c.read()
		if f.kind != frameSpawn {
			panic(fmt.Sprint("zygote got frame ", f.kind))
		}
		id := f.id
		cmd := exec.Command(os.Args[0], strconv.FormatUint(id, 10))
		cmd.Env = append(os.Environ(), roleVariable+"=worker")
		cmd.Stderr = os.Stderr
		socket, page := os.NewFile(uintptr(f.fds[0]), ""), os.NewFile(uintptr(f.fds[1]), "")
		cmd.ExtraFiles = []*os.File{socket, page}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		_, _ = socket.Close(), page.Close()
		if mute {
			continue
		}
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			panic(err)
		}
		var e encoder
		e.u32(uint32(cmd.Process.Pid))
		mu.Lock()
		c.write(frameSpawned, id, e.buf, pidfd)
		mu.Unlock()
		guard.Go("wait", func(p *guard.Panic) { panic(p.Error()) }, func() {
			_ = cmd.Wait()
			var e encoder
			e.u32(uint32(cmd.Process.Pid))
			e.u32(uint32(cmd.ProcessState.Sys().(syscall.WaitStatus)))
			e.u64(0)
			mu.Lock()
			defer mu.Unlock()
			c.write(frameExited, id, e.buf)
		})
	}
}

// fakeTask is a decoded TASK.
type fakeTask struct {
	id     uint64
	target string
	input  wireValue
	fds    []int
	arrays []wireArray
}

type fakeWorkerState struct {
	*peerConn
	page  *uint64
	queue []fakeTask

	functions int // FUNCTION frames that have come

	hoards  bool     // keeps maps in garbage, as a reference cycle does
	hoarded []uint64 // segments it was told to let go of, and has not
	kept    *os.File // names the worker's own descriptor: collected, it would close it
}

func fakeWorker() {
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	page, err := unix.MmapPtr(4, 0, nil, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	w := &fakeWorkerState{peerConn: newPeer(3), page: (*uint64)(page)}
	w.maxPayload = maxPayload // as a real worker
	id, _ := strconv.ParseUint(os.Args[1], 10, 64)
	var e encoder
	e.u32(Protocol)
	e.u32(uint32(os.Getpid()))
	w.write(frameReady, id, e.buf)
	for {
		for len(w.queue) == 0 {
			w.handle(w.read())
		}
		w.drain()
		if len(w.queue) == 0 {
			continue
		}
		t := w.queue[0]
		w.queue = w.queue[1:]
		*w.page = 2<<56 | t.id
		w.run(t)
		*w.page = 0
	}
}

// drain handles what has come: a task that waits here may have been called back.
func (w *fakeWorkerState) drain() {
	for {
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, 0); n <= 0 && len(w.in) == 0 { // -1: Go's own signals interrupt it
			return
		}
		w.handle(w.read())
	}
}

// handle takes any frame that may come at any time.
func (w *fakeWorkerState) handle(f *frame) {
	d := &decoder{buf: f.payload}
	switch f.kind {
	case frameTask:
		t := fakeTask{id: f.id, fds: f.fds}
		d.take(8 + 8 + 8 + 2)
		n := d.u16()
		t.target = d.str()
		t.input = d.value()
		for range n {
			t.arrays = append(t.arrays, d.array())
		}
		if err := d.end(); err != nil {
			panic(err)
		}
		w.queue = append(w.queue, t)
	case frameRetire:
		if w.hoards {
			w.hoarded = append(w.hoarded, f.id)
			break
		}
		w.write(frameRetired, f.id, nil)
	case frameCheck:
		if d.u8() == 1 {
			for _, segment := range w.hoarded {
				w.write(frameRetired, segment, nil)
			}
			w.hoarded = nil
		}
		w.write(frameChecked, 0, nil)
	case frameCancel:
		for i, t := range w.queue {
			if t.id == f.id {
				w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
				w.write(frameCancelled, f.id, nil)
				break
			}
		}
	case frameFunction:
		w.functions++
	case frameForget:
	default:
		panic(fmt.Sprint("worker got frame ", f.kind))
	}
}

// answer reads until the answer of the given kind comes, handling the rest.
func (w *fakeWorkerState) answer(kind frameType) (*decoder, []int) {
	for {
		f := w.read()
		if f.kind == kind {
			return &decoder{buf: append([]byte(nil), f.payload...)}, append([]int(nil), f.fds...)
		}
		w.handle(f)
	}
}

func (w *fakeWorkerState) reply(id uint64, text string) {
	var e encoder
	e.u64(0)
	e.value(&Value{Codec: CodecRaw, Inline: [][]byte{[]byte(text)}})
	e.u16(0)
	w.write(frameResult, id, e.buf)
}

func (w *fakeWorkerState) run(t fakeTask) {
	verb, argument, _ := strings.Cut(t.target, " ")
	switch verb {
	case "echo":
		w.reply(t.id, string(t.input.inline[0]))
	case "pid":
		w.reply(t.id, strconv.Itoa(os.Getpid()))
	case "trace": // in a file, that it runs, and then run what is behind the file
		file, rest, _ := strings.Cut(argument, " ")
		leaveTrace(file, t.input.inline[0])
		t.target = rest
		w.run(t)
	case "functions-received":
		w.reply(t.id, strconv.Itoa(w.functions))
	case "raise":
		var e encoder
		e.u64(0)
		e.str("ValueError")
		e.str(argument)
		e.str("the traceback")
		e.value(&Value{})
		w.write(frameFailed, t.id, e.buf)
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "exit":
		code, _ := strconv.Atoi(argument)
		os.Exit(code)
	case "reply-then-die":
		w.reply(t.id, "done")
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "die-once":
		if _, err := os.Stat(argument); err != nil {
			_ = os.WriteFile(argument, nil, 0o600)
			os.Exit(1)
		}
		w.reply(t.id, "second time")
	case "hang":
		select {}
	case "wait-for": // a file
		for {
			if _, err := os.Stat(argument); err == nil {
				break
			}
			_, _ = unix.Poll(nil, 1)
		}
		w.reply(t.id, "waited")
	case "close-socket":
		_ = unix.Close(3)
		select {}
	case "find-socket-closed":
		*w.page = phaseCutOff<<statusPhase | t.id
		os.Exit(1)
	case "answer-behind-garbage":
		w.write(frameType(999), t.id, nil)
		w.reply(t.id, "nobody reads this")
	case "garbage":
		w.write(frameType(999), t.id, nil)
		select {}
	case "log":
		var e encoder
		e.u32(20)
		e.str("a.logger")
		e.str(argument)
		w.write(frameLog, t.id, e.buf)
		w.reply(t.id, "")
	case "fetch":
		w.reply(t.id, w.fetch(t, argument))
	case "hoard":
		w.hoards = true
		w.reply(t.id, w.fetch(t, argument))
	case "hang-afterwards":
		*w.page = 0
		w.reply(t.id, "")
		for { // the runtime's signals interrupt
			_, _ = unix.Poll(nil, -1)
		}
	case "leave-socket": // with a child, which lives until somebody has opened the FIFO for writing
		child := exec.Command("cat", argument)
		socket := os.NewFile(uintptr(w.fd), "")
		child.ExtraFiles = []*os.File{socket}
		if err := child.Start(); err != nil {
			panic(err)
		}
		w.kept = socket
		w.reply(t.id, "")
	case "refer-to-fetched": // after a file is there
		segment := w.fetchSegmentOf(t, "x")
		for _, err := os.Stat(argument); err != nil; _, err = os.Stat(argument) {
			_, _ = unix.Poll(nil, 1)
		}
		w.replyIn(t.id, segment, 4096, 8)
	case "given":
		names := make([]string, len(t.arrays))
		for i, a := range t.arrays {
			names[i] = a.key
		}
		w.reply(t.id, strings.Join(names, ","))
	case "sum-input":
		w.reply(t.id, strconv.Itoa(sumSegment(t)))
	case "large", "large-still-written":
		w.large(t, verb == "large-still-written", argument)
	case "too-much":
		d, _ := w.alloc(t, 1<<50)
		d.u8()
		w.reply(t.id, d.str())
	default:
		panic("no such fake task: " + t.target)
	}
}

func (w *fakeWorkerState) fetch(t fakeTask, key string) string {
	var e encoder
	e.u64(t.id)
	e.u8(fetchHeavy)
	e.str(key)
	e.u64(0)
	w.write(frameFetch, 1, e.buf)
	d, fds := w.answer(frameFetched)
	switch d.u8() {
	case fetchedAbsent:
		return "absent, there are " + d.str()
	case fetchedUnpublished:
		return "unpublished"
	case fetchedError:
		return "error " + d.str()
	}
	a := d.array()
	if len(fds) == 0 {
		return fmt.Sprintf("%s without a descriptor", a.key)
	}
	mapped, err := unix.Mmap(fds[0], 0, int(a.offset)+8, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	closeAll(fds)
	defer func() { _ = unix.Munmap(mapped) }()
	return fmt.Sprintf("%s %v %d", a.key, a.layout.Shape, binary.LittleEndian.Uint64(mapped[a.offset:]))
}

func sumSegment(t fakeTask) (sum int) {
	s := t.input.spans[0]
	mapped, err := unix.Mmap(t.fds[0], 0, int(s.Offset+s.Len), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	closeAll(t.fds)
	for _, b := range mapped[s.Offset:] {
		sum += int(b)
	}
	_ = unix.Munmap(mapped)
	return sum
}

func (w *fakeWorkerState) alloc(t fakeTask, size uint64) (*decoder, []int) {
	var e encoder
	e.u64(t.id)
	e.u64(size)
	e.str("a result")
	w.write(frameAlloc, 2, e.buf)
	return w.answer(frameGranted)
}

// leaveTrace appends a line to a file, whole though several workers do so.
func leaveTrace(file string, line []byte) {
	trace, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer trace.Close()
	if _, err := trace.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// large gives a result in a granted segment, which it may keep mapped for writing. Its number goes into a file, if one is named.
func (w *fakeWorkerState) large(t fakeTask, keep bool, number string) {
	const size = 100_000
	d, fds := w.alloc(t, size)
	if d.u8() != 0 {
		w.reply(t.id, d.str())
		return
	}
	segment, mappedSize := d.u64(), d.u64()
	if number != "" {
		if err := os.WriteFile(number, []byte(strconv.FormatUint(segment, 10)), 0o600); err != nil {
			panic(err)
		}
	}
	mapped, err := unix.Mmap(fds[0], 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	closeAll(fds)
	for i := range mapped {
		mapped[i] = 7
	}
	if !keep {
		_ = unix.Munmap(mapped)
	}
	w.replyIn(t.id, segment, mappedSize, size)
}

// replyIn gives the first bytes of a segment as the result.
func (w *fakeWorkerState) replyIn(task, segment, mapped, size uint64) {
	var e encoder
	e.u64(0)
	e.u8(CodecRaw)
	e.u8(whereSegment)
	e.u16(1)
	e.u64(segment)
	e.u64(mapped)
	e.u64(0)
	e.u64(size)
	e.u16(0)
	w.write(frameResult, task, e.buf)
}

// fetchSegmentOf asks for an array and gives the number of its segment.
func (w *fakeWorkerState) fetchSegmentOf(t fakeTask, key string) uint64 {
	var e encoder
	e.u64(t.id)
	e.u8(fetchHeavy)
	e.str(key)
	e.u64(0)
	w.write(frameFetch, 1, e.buf)
	d, fds := w.answer(frameFetched)
	closeAll(fds)
	d.u8()
	return d.array().segmentID
}

// fixture is a pool of fakes.
type fixture struct {
	*Pool
	t    *testing.T
	heap *shm.Heap
}

func newFixture(t *testing.T, workers int, role string) *fixture {
	t.Helper()
	watchLeftovers(t)
	f := &fixture{t: t}
	f.heap = shm.NewHeap(shm.HeapOptions{Limit: 64 << 20, OnDrop: func(s *shm.Segment) { f.Retire(s) }})
	p, err := New(Options{
		Name: "test", Python: os.Args[0], WorkerMain: "unused", Env: append(os.Environ(), roleVariable+"="+role),
		Workers: workers, Heap: f.heap,
		OnPanic: func(p *guard.Panic) { panic(p.Error() + "\n" + p.Stack) },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Pool = p
	t.Cleanup(func() {
		pids := p.Processes()
		p.Close(0)
		f.heap.Close()
		for _, pid := range pids {
			if unix.Kill(pid, 0) == nil && !isZombie(pid) {
				t.Errorf("process %d outlived the pool", pid)
			}
		}
		eventually(t, "the heap is empty", func() bool { return f.heap.Stats().InUse == 0 })
	})
	return f
}

func isZombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

// eventually polls a condition, up to a deadline that only a bug reaches.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	if !happens(condition) {
		t.Fatalf("never happened: %s", what)
	}
}

func happens(condition func() bool) bool {
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		_, _ = unix.Poll(nil, 1)
	}
	return true
}

func (f *fixture) call(target, input string) Call {
	v, err := NewValue(f.heap, CodecRaw, [][]byte{[]byte(input)}, "input")
	if err != nil {
		f.t.Fatal(err)
	}
	return Call{Target: target, Input: v, OutCodec: CodecRaw, Learn: true}
}

func (f *fixture) submit(c Call) *Task {
	f.t.Helper()
	task, err := f.Submit(c)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(task.Release)
	return task
}

func (f *fixture) start(target string) *Task { f.t.Helper(); return f.submit(f.call(target, "")) }

// end waits for a task; only a bug reaches its deadline.
func (f *fixture) end(task *Task) *Outcome {
	f.t.Helper()
	select {
	case <-task.Done():
	case <-time.After(20 * time.Second):
		f.t.Fatalf("task %s did not end", task.Name())
	}
	return task.Outcome()
}

func (f *fixture) run(target string) *Outcome { f.t.Helper(); return f.end(f.start(target)) }

func text(o *Outcome) string {
	if len(o.Value.Inline) == 0 {
		return fmt.Sprintf("(no inline value; %d %s)", o.Status, o.Message)
	}
	return string(o.Value.Inline[0])
}

// array is a frozen array of one uint64.
func (f *fixture) array(key string, value uint64) *Array {
	f.t.Helper()
	return f.arrayIn(8, key, value)
}

// arrayIn is the same at the start of a segment of a size.
func (f *fixture) arrayIn(size int64, key string, value uint64) *Array {
	f.t.Helper()
	seg, err := f.heap.Create(size, key)
	if err != nil {
		f.t.Fatal(err)
	}
	base, _ := seg.Writable()
	*(*uint64)(unsafe.Pointer(&bytesAt(base, 8)[0])) = value
	if err := seg.Freeze(); err != nil {
		f.t.Fatal(err)
	}
	return &Array{Segment: seg, Key: key, Version: 1, Layout: Layout{Descr: "<u8", Itemsize: 8, Shape: []int64{1}, Strides: []int64{8}}}
}
