package pool

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"unsafe"

	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

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
	page   *uint64    // its status word
	beside *fakeRings // its rings, which it uses from the task "use-rings" on
	queue  []fakeTask

	functions int // FUNCTION frames that have come

	hoards  bool     // keeps maps in garbage, as a reference cycle does
	hoarded []uint64 // segments it was told to let go of, and has not
	kept    *os.File // names the worker's own descriptor: collected, it would close it
}

func fakeWorker() {
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	page, err := unix.MmapPtr(4, 0, nil, shm.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	w := &fakeWorkerState{peerConn: newPeer(3), page: (*uint64)(unsafe.Add(page, shm.PageSize-4096)), beside: newFakeRings(page)}
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
		if n, _ := unix.Poll(fds, 0); n <= 0 && len(w.in) == 0 && !(w.rings != nil && w.beside.pending()) { // -1: Go's own signals interrupt it
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
	case frameForget, frameWake:
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
	case "use-rings":
		w.rings = w.beside
		w.reply(t.id, "")
	case "spoil-ring":
		w.beside.announce(w.beside.put + 100)
		select {}
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
	case "write-output": // each time by a new map, as it keeps none beyond the task
		d, fds := w.ask(t, fetchSegment, "", t.arrays[0].segmentID)
		if d.u8() != fetchedHere {
			w.reply(t.id, d.str())
			break
		}
		mapped, err := unix.Mmap(fds[0], 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		closeAll(fds)
		if err != nil {
			w.reply(t.id, err.Error())
			break
		}
		mapped[0]++
		_ = unix.Munmap(mapped)
		w.reply(t.id, "written")
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

// askFor asks for an array and gives the answer, with its descriptors.
func (w *fakeWorkerState) askFor(t fakeTask, key string) (*decoder, []int) {
	return w.ask(t, fetchHeavy, key, 0)
}

func (w *fakeWorkerState) ask(t fakeTask, kind uint8, key string, argument uint64) (*decoder, []int) {
	var e encoder
	e.u64(t.id)
	e.u8(kind)
	e.str(key)
	e.u64(argument)
	w.write(frameFetch, 1, e.buf)
	return w.answer(frameFetched)
}

func (w *fakeWorkerState) fetch(t fakeTask, key string) string {
	d, fds := w.askFor(t, key)
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
	d, fds := w.askFor(t, key)
	closeAll(fds)
	d.u8()
	return d.array().segmentID
}
