package pool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// FuzzWorkerFrames has a worker send anything that a worker may, and anything that it must not. A frame that breaks the
// protocol ends the worker, with the reason; every task has one end, and nothing is left.
//
// A script is a list of frames: type, flags, id, length u16, payload. See puppetFrame.
func FuzzWorkerFrames(f *testing.F) {
	for _, script := range workerScripts() {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		h := newPuppets(t)
		h.play(h.worker, script)
		h.end()
	})
}

// FuzzZygoteFrames does the same with the zygote.
func FuzzZygoteFrames(f *testing.F) {
	for _, script := range zygoteScripts() {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		h := newPuppets(t)
		h.worker.frame(frameReady, 0, h.worker.number, readyPayload)
		h.play(h.zygote, script)
		h.end()
	})
}

// puppets is a pool without processes: the test holds the far ends of the zygote's and the worker's sockets. Nothing runs by
// itself; pump does what the reactor would.
type puppets struct {
	*Pool
	t              *testing.T
	heap           *shm.Heap
	z              *zygote
	w              *worker
	zygote, worker *puppet
	tasks          []*Task
	source         *fakeSource
	segments       []uint64 // that the script may name
	goroutines     int
	descriptors    int
}

// puppet is the far end of a socket.
type puppet struct {
	*peerConn
	number uint64
	page   int    // what a worker shares with its host
	put    uint64 // messages in its ring
}

func newPuppets(t *testing.T) *puppets {
	h := &puppets{t: t, goroutines: guarded(), descriptors: openDescriptors()}
	h.heap = shm.NewHeap(shm.HeapOptions{Limit: 1 << 20, OnDrop: func(s *shm.Segment) { h.Retire(s) }})
	p, err := New(Options{
		Name: "test", Python: "/nowhere/python", WorkerMain: "unused", Workers: 1, Heap: h.heap,
		OnPanic: func(p *guard.Panic) { panic(p.Error() + "\n" + p.Stack) },
	})
	require.NoError(t, err)
	h.Pool = p
	ours, theirs, err := socketPair()
	require.NoError(t, err)
	ended := make(chan struct{})
	close(ended)
	h.z = &zygote{pool: p, conn: &conn{fd: ours, maxPayload: maxConfig}, process: &os.Process{Pid: -1}, ended: ended, ready: true}
	h.zygote = &puppet{peerConn: newPeer(theirs), page: -1}
	p.mu.Lock()
	defer p.unlock()
	p.started = true // nobody is to start processes
	p.zygote = h.z
	h.z.token, err = p.reactor.add(h.z)
	require.NoError(t, err)
	require.NoError(t, p.launch(h.z, 0))
	h.w = p.workers[0]
	spawn := h.zygote.read()
	require.Equal(t, frameSpawn, spawn.kind)
	h.worker = &puppet{peerConn: newPeer(spawn.fds[0]), number: spawn.id, page: spawn.fds[1]}
	h.give()
	return h
}

// give has tasks wait for the worker. mu is held.
func (h *puppets) give() {
	f := fixture{t: h.t, heap: h.heap}
	x, y := f.array("x", 1), f.array("y", 2)
	h.segments = []uint64{x.Segment.ID(), y.Segment.ID()}
	h.source = &fakeSource{arrays: map[string]*Array{"x": x}}
	h.Pool.mu.Unlock()
	defer h.Pool.mu.Lock()
	function := h.Define("f", Value{Codec: CodecPickle, Inline: [][]byte{[]byte("code")}})
	for range 3 {
		call := f.call("", "input")
		call.Function, call.Source, call.Arrays = function, h.source, []*Array{y.Ref()}
		task, err := h.Submit(call)
		require.NoError(h.t, err)
		h.tasks = append(h.tasks, task)
	}
	y.Unref()
	h.Forget(function)
}

// bits of a frame's flags
const (
	puppetCut      = 1 << 0 // the header announces one byte more than there is
	puppetGift     = 1 << 1 // a descriptor comes with it
	puppetPromise  = 1 << 2 // a descriptor is announced
	puppetPhase    = 1 << 3 // the status page names the task of this id
	puppetKeep     = 1 << 4 // granted segments are kept open for writing
	puppetHighBits = 1 << 5 // an id that is not small
	puppetRing     = 1 << 6 // it goes by the ring
	puppetSpoil    = 1 << 7 // and the ring announces as many messages more as the id says
)

// puppetToken in a payload stands for the number of a segment: "segment0" for the first that the worker knows.
const puppetToken = "segment"

func (h *puppets) play(p *puppet, script []byte) {
	for len(script) >= 5 {
		kind, flags, id := frameType(script[0]), script[1], uint64(script[2])
		length := min(int(binary.LittleEndian.Uint16(script[3:])), len(script)-5)
		payload := script[5 : 5+length]
		script = script[5+length:]
		for i, segment := range h.segments {
			if i == 10 {
				break
			}
			payload = bytes.ReplaceAll(payload, fmt.Appendf(nil, puppetToken+"%d", i), binary.LittleEndian.AppendUint64(nil, segment))
		}
		if flags&puppetHighBits != 0 {
			id |= 1 << 63
		}
		p.frame(kind, flags, id, payload)
		h.idle() // segments that were granted can be named from here on
		h.sync(p)
	}
}

func (p *puppet) frame(kind frameType, flags byte, id uint64, payload []byte) {
	if flags&puppetPhase != 0 && p.page >= 0 {
		p.store(shm.PageSize-4096, 2<<56|id)
	}
	data := newFrame(kind, id, payload, int(flags&puppetPromise/puppetPromise))
	if flags&puppetCut != 0 {
		binary.LittleEndian.PutUint32(data, uint32(len(payload)+1))
	}
	if flags&puppetRing != 0 && p.page >= 0 && len(data) <= messageRoom-16 {
		p.intoRing(data, flags, id)
		return
	}
	var rights []byte
	if flags&puppetGift != 0 {
		fd := endOfPipe()
		defer closeAll([]int{fd})
		rights = unix.UnixRights(fd)
	}
	_, _ = unix.SendmsgN(p.fd, data, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// intoRing puts a frame into the worker's ring, whether there is room or not. With a promise it is to be read behind bytes that
// are never sent.
func (p *puppet) intoRing(frame []byte, flags byte, id uint64) {
	slot := ringBytes + 64 + int64(p.put%8)*messageRoom
	p.store(slot, uint64(flags&puppetPromise)<<40)
	p.store(slot+8, uint64(len(frame)))
	_, _ = unix.Pwrite(p.page, frame, slot+16)
	p.put++
	if flags&puppetSpoil != 0 {
		p.put += id
	}
	p.store(ringBytes, p.put)
}

func (p *puppet) store(offset int64, word uint64) {
	_, _ = unix.Pwrite(p.page, binary.LittleEndian.AppendUint64(nil, word), offset)
}

// endOfPipe gives a descriptor that is always ready: who takes it for a pidfd finds that the process has ended.
func endOfPipe() int {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		panic(err)
	}
	_ = unix.Close(pipe[1])
	return pipe[0]
}

// pump does what the reactor would, until nothing is left to be read.
func (h *puppets) pump() {
	var events [16]unix.EpollEvent
	for range 4 {
		n, _ := unix.EpollWait(h.reactor.epoll, events[:], 0)
		h.handle(events[:max(n, 0)])
		h.reactor.reading.Lock()
		h.readFrom(h.w)
	}
}

// sync reads what the host has sent, and remembers the segments that it granted.
func (h *puppets) sync(p *puppet) {
	for {
		if more, err := p.receive(); err != nil || !more {
			return
		}
		for f, err := p.next(); f != nil && err == nil; f, err = p.next() {
			d := &decoder{buf: f.payload}
			if f.kind == frameGranted && d.u8() == fetchedHere {
				h.segments = append(h.segments, d.u64())
			}
			closeAll(f.fds)
		}
	}
}

// end lets both die, as their zygote's death would, and checks what is left.
func (h *puppets) end() {
	if fault := h.w.fault; fault != nil {
		require.NotEmpty(h.t, fault.Error())
		require.True(h.t, h.w.condemned || h.w.judged, "it goes on in spite of %v", fault)
	}
	h.w.gone(exitReport{pid: 1, status: unix.WaitStatus(unix.SIGKILL)})
	h.pump()
	for _, p := range []*puppet{h.worker, h.zygote} {
		p.close()
		closeAll([]int{p.page})
	}
	h.idle()
	h.mu.Lock()
	h.started = false // no reactor to be waited for
	h.mu.Unlock()
	h.Close(0)
	for i, task := range h.tasks {
		require.True(h.t, task.Ended(), "task %d", i)
		h.ended(task.Outcome())
		task.Release()
	}
	h.source.arrays["x"].Unref()
	require.Equal(h.t, len(h.tasks), h.source.released)
	h.heap.Close() // it may have kept the arena of a small result for the next one
	h.settled(func() bool { return h.heap.Stats().InUse == 0 && openDescriptors() == h.descriptors })
}

func (h *puppets) ended(o *Outcome) {
	switch o.Status {
	case OK, Cancelled, NoWorkers:
	case Failed:
		require.NotEmpty(h.t, o.Message)
	case Crashed:
		if h.w.fault != nil && h.w.judged {
			require.Contains(h.t, o.Message, h.w.fault.Error())
			require.Regexp(h.t, "broke the protocol|the zygote cannot fork", o.Message)
		}
	default:
		h.t.Errorf("a task ended with status %d: %s", o.Status, o.Message)
	}
}

// idle lets everything happen that follows from what was sent.
func (h *puppets) idle() {
	h.settled(func() bool { h.pump(); return guarded() <= h.goroutines })
}

// settled waits for goroutines that answer. Only a bug reaches the deadline.
func (h *puppets) settled(condition func() bool) {
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			h.t.Fatalf("left: %d goroutines of %d, %d bytes, descriptors %d of %d\n%s", guarded(), h.goroutines,
				h.heap.Stats().InUse, openDescriptors(), h.descriptors, stacks())
		}
		_, _ = unix.Poll(nil, 0)
	}
}

// guarded counts the goroutines that the pool has started and that still run.
func guarded() int {
	return bytes.Count(stacks(), []byte("created by github.com/theus-project/theus-go/internal/guard.Go "))
}

func stacks() []byte { return stackText[:runtime.Stack(stackText, true)] }

var stackText = make([]byte, 1<<18) // one test at a time is at it

func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

var readyPayload = func() []byte {
	var e encoder
	e.u32(Protocol)
	e.u32(1234)
	return e.buf
}()

// script joins frames to what play takes.
type script struct{ strings.Builder }

func (s *script) frame(kind frameType, flags byte, id byte, payload []byte) *script {
	s.Write([]byte{byte(kind), flags, id})
	s.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(payload))))
	s.Write(payload)
	return s
}

func payloadOf(write func(e *encoder)) []byte {
	var e encoder
	write(&e)
	return e.buf
}

func fetchPayload(kind uint8, key string, argument uint64) []byte {
	return payloadOf(func(e *encoder) { e.u64(1); e.u8(kind); e.str(key); e.u64(argument) })
}

func allocPayload(size uint64) []byte {
	return payloadOf(func(e *encoder) { e.u64(1); e.u64(size); e.str("label") })
}

func resultPayload(value func(e *encoder), arrays ...[]byte) []byte {
	return payloadOf(func(e *encoder) {
		e.u64(1000)
		value(e)
		e.u16(uint16(len(arrays)))
		for _, a := range arrays {
			e.buf = append(e.buf, a...)
		}
	})
}

func inlineValue(e *encoder) { e.value(&Value{Codec: CodecRaw, Inline: [][]byte{[]byte("text")}}) }

// valueIn is a value in the segment that a token names.
func valueIn(token string) func(e *encoder) {
	return func(e *encoder) {
		e.u8(CodecRaw)
		e.u8(whereSegment)
		e.u16(1)
		e.buf = append(e.buf, token...)
		for _, n := range []uint64{4096, 0, 64} {
			e.u64(n)
		}
	}
}

// arrayIn is a DESCRIPTOR in the segment that a token names.
func arrayIn(token string) []byte {
	d := descriptorOf(&Layout{Descr: "<f8", Itemsize: 8, Shape: []int64{2}, Strides: []int64{8}})
	return append([]byte(token), d[8:]...)
}

func workerScripts() [][]byte {
	ready := func() *script { return new(script).frame(frameReady, 0, 1, readyPayload) }
	failed := payloadOf(func(e *encoder) { e.u64(5); e.str("ValueError"); e.str("text"); e.str("traceback"); e.value(&Value{}) })
	log := payloadOf(func(e *encoder) { e.u32(20); e.str("logger"); e.str("message") })
	scripts := []*script{
		ready().frame(frameResult, puppetPhase, 1, resultPayload(inlineValue)).frame(frameFailed, 0, 2, failed),
		ready().frame(frameAlloc, 0, 1, allocPayload(100)).frame(frameAlloc, 0, 2, allocPayload(5000)).
			frame(frameResult, 0, 1, resultPayload(valueIn("segment2"), arrayIn("segment3"), arrayIn("segment1"))),
		// A result of which one part can be taken over and the other cannot.
		ready().frame(frameAlloc, 0, 1, allocPayload(100)).frame(frameResult, 0, 1, resultPayload(valueIn("segment2"), arrayIn("segment9"))),
		ready().frame(frameAlloc, 0, 1, allocPayload(1<<63)).frame(frameAlloc, 0, 2, allocPayload(1<<40)),
		ready().frame(frameResult, 0, 1, resultPayload(valueIn("segment9"))).frame(frameCancelled, 0, 2, nil),
		ready().frame(frameLog, 0, 1, log).frame(frameRetired, 0, 9, nil).frame(frameCancelled, puppetPhase, 1, nil),
		ready().frame(frameReady, 0, 1, readyPayload).frame(frameReady, 0, 1, readyPayload[:7]),
		new(script).frame(frameReady, 0, 1, []byte{9, 0, 0, 0, 1, 0, 0, 0}),
		ready().frame(frameLog, puppetGift, 1, log),
		ready().frame(frameLog, puppetPromise, 1, log),
		ready().frame(frameLog, puppetGift|puppetPromise, 1, log),
		ready().frame(frameResult, puppetCut|puppetPhase, 1, resultPayload(inlineValue)),
		ready().frame(frameType(99), puppetPhase, 1, nil),
		ready().frame(frameTask, puppetPhase, 2, nil),
		ready().frame(frameResult, puppetPhase|puppetRing, 1, resultPayload(inlineValue)).frame(frameFailed, puppetRing, 2, failed),
		ready().frame(frameLog, puppetRing|puppetSpoil, 9, log).frame(frameLog, puppetRing|puppetSpoil, 1, log),
		ready().frame(frameLog, puppetRing|puppetCut, 1, log).frame(frameLog, puppetRing|puppetPromise, 1, log),
	}
	for kind := range uint8(6) {
		scripts = append(scripts, ready().frame(frameFetch, puppetPhase, 1, fetchPayload(kind, "x", 1)))
	}
	out := make([][]byte, len(scripts))
	for i, s := range scripts {
		out[i] = []byte(s.String())
	}
	return out
}

func zygoteScripts() [][]byte {
	hello := []byte(`{"pid":7,"python":"x","mode":"fork","warnings":["careful"]}`)
	pid := []byte{210, 4, 0, 0}
	exited := append([]byte{210, 4, 0, 0, 9, 0, 0, 0}, make([]byte, 8)...)
	const withFD = puppetGift | puppetPromise
	scripts := []*script{
		new(script).frame(frameZygoteReady, 0, 0, hello).frame(frameSpawned, withFD, 1, pid).frame(frameExited, 0, 1, exited),
		new(script).frame(frameSpawned, withFD, 1, pid).frame(frameSpawned, withFD, 1, pid),
		new(script).frame(frameSpawned, withFD, 7, pid),
		new(script).frame(frameSpawned, 0, 1, pid),
		new(script).frame(frameSpawned, puppetGift, 1, pid),
		new(script).frame(frameExited, 0, 1, exited).frame(frameSpawned, withFD, 2, pid).frame(frameExited, 0, 1, exited),
		new(script).frame(frameExited, 0, 1, exited[:9]),
		new(script).frame(frameSpawnFailed, 0, 1, payloadOf(func(e *encoder) { e.str("no memory") })),
		new(script).frame(frameZygoteReady, 0, 0, []byte("no json")),
		new(script).frame(frameZygoteReady, puppetPromise|puppetHighBits, 125, make([]byte, 3)),
		new(script).frame(frameZygoteReady, withFD, 0, []byte("{}")).frame(frameType(200), withFD, 0, nil),
	}
	out := make([][]byte, len(scripts))
	for i, s := range scripts {
		out[i] = []byte(s.String())
	}
	return out
}
