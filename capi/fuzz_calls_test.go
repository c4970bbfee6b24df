package main

import (
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/pool"
)

// FuzzCalls makes any calls in any order, as a C program could that gets everything wrong but the sizes of its memory: NULL
// for each pointer, stale and foreign handles, double releases, struct_size that lies, impossible shapes and lengths. Each
// gives a status, with a message; none gives THEUS_EPANIC, and at the end nothing is left.
//
// A script is a list of choices, one byte each: a call, then its arguments. Tests cannot import "C", so C's types
// have the names here that cgo gives them.
func FuzzCalls(f *testing.F) {
	names := exportNames()
	for i := range names {
		f.Add([]byte{byte(i), 0, 0, 0, 0, 0, 0, 0, 0, 0})
		f.Add([]byte{byte(i), 1, 1, 1, 1, 1, 1, 1, 1, 1, byte(i), 2, 2, 2, 2, 2, 2, 2, 2, 2})
	}
	f.Add([]byte("a longer program, which makes and breaks whatever its letters happen to say"))
	f.Fuzz(func(t *testing.T, script []byte) {
		c := newCaller(t, script)
		for range 40 {
			if len(c.script) == 0 {
				break
			}
			name := names[c.pick(len(names))]
			c.check(name, exports[name](c))
		}
		c.end()
	})
}

// someRows are more than five rows of any window that fits into the engine's heap.
var someRows [8 << 20]byte

// exports are all functions of the interface, with arguments that the script chooses.
var exports = map[string]func(c *caller) _Ctype_int32_t{
	"version": func(c *caller) _Ctype_int32_t { theusgo_version(); return 0 },
	"release": func(c *caller) _Ctype_int32_t { c.silent = true; return theusgo_release(c.handle()) },
	"release_later": func(c *caller) _Ctype_int32_t {
		c.silent = true
		return theusgo_release_later(c.handle())
	},
	"open":  func(c *caller) _Ctype_int32_t { return theusgo_open(c.options(), c.out(), c.err()) },
	"drain": func(c *caller) _Ctype_int32_t { return theusgo_drain(c.handle(), c.time(), c.err()) },
	"close": func(c *caller) _Ctype_int32_t { return theusgo_close(c.handle(), c.time(), c.err()) },
	"stats": func(c *caller) _Ctype_int32_t { return theusgo_stats(c.handle(), c.out(), c.err()) },
	"reap":  func(c *caller) _Ctype_int32_t { return theusgo_reap(c.handle(), c.out(), c.err()) },
	"logs":  func(c *caller) _Ctype_int32_t { return theusgo_logs(c.handle(), c.out(), c.err()) },
	"blob_data": func(c *caller) _Ctype_int32_t {
		c.silent = true
		return theusgo_blob_data(c.handle(), orNil(c, new(unsafe.Pointer)), c.number())
	},
	"alloc": func(c *caller) _Ctype_int32_t {
		return theusgo_alloc(c.handle(), c.text(), c.int32(), c.int32(), c.shape(), c.flags(), c.out(), c.err())
	},
	"alloc_descr": func(c *caller) _Ctype_int32_t {
		return theusgo_alloc_descr(c.handle(), c.text(), c.text(), c.uint64(), c.int32(), c.shape(), c.flags(), c.out(), c.err())
	},
	"edit": func(c *caller) _Ctype_int32_t { return theusgo_edit(c.handle(), c.text(), c.flags(), c.out(), c.err()) },
	"stream_open": func(c *caller) _Ctype_int32_t {
		return theusgo_stream_open(c.handle(), c.text(), c.text(), c.uint64(), c.int32(), c.shape(), c.uint64(), c.flags(), c.out(), c.err())
	},
	"stream_next": func(c *caller) _Ctype_int32_t {
		// No longer: frames that are not released never come free.
		return theusgo_stream_next(c.handle(), _Ctype_int64_t(c.pick(2)), c.out(), c.err())
	},
	"window_open": func(c *caller) _Ctype_int32_t {
		return theusgo_window_open(c.handle(), c.text(), c.text(), c.uint64(), c.int32(), c.shape(), c.uint64(), c.out(), c.err())
	},
	"window_append": func(c *caller) _Ctype_int32_t {
		rows := orNil(c, &someRows)
		return theusgo_window_append(c.handle(), unsafe.Pointer(rows), _Ctype_uint64_t(c.pick(5)), c.out(), c.err())
	},
	"view_get": func(c *caller) _Ctype_int32_t { return theusgo_view_get(c.handle(), c.view(), c.err()) },
	"snapshot": func(c *caller) _Ctype_int32_t { return theusgo_snapshot(c.handle(), c.out(), c.number(), c.err()) },
	"get":      func(c *caller) _Ctype_int32_t { return theusgo_get(c.handle(), c.text(), c.out(), c.err()) },
	"get_json": func(c *caller) _Ctype_int32_t { return theusgo_get_json(c.handle(), c.text(), c.out(), c.err()) },
	"export":   func(c *caller) _Ctype_int32_t { return theusgo_export(c.handle(), c.text(), c.out(), c.err()) },
	"heavy_keys": func(c *caller) _Ctype_int32_t {
		return theusgo_heavy_keys(c.handle(), c.out(), c.err())
	},
	"cas": func(c *caller) _Ctype_int32_t {
		updates, n := c.updates()
		return theusgo_cas(c.handle(), c.uint64(), updates, n, c.flags(), c.number(), c.err())
	},
	"define": func(c *caller) _Ctype_int32_t {
		code, n := c.spans()
		return theusgo_define(c.handle(), c.text(), code, n, c.out(), c.err())
	},
	"execute": func(c *caller) _Ctype_int32_t { return theusgo_execute(c.handle(), c.call(), c.out(), c.err()) },
	"run": func(c *caller) _Ctype_int32_t {
		return theusgo_run(c.handle(), c.call(), c.out(), c.small(), c.err())
	},
	"wait":     func(c *caller) _Ctype_int32_t { return theusgo_wait(c.handle(), c.time(), c.err()) },
	"look":     func(c *caller) _Ctype_int32_t { return theusgo_look(c.handle(), c.err()) },
	"announce": func(c *caller) _Ctype_int32_t { return theusgo_announce(c.handle(), c.handle(), c.uint64(), c.err()) },
	"result":   func(c *caller) _Ctype_int32_t { return theusgo_result(c.handle(), c.value(), c.err()) },
	"take":     func(c *caller) _Ctype_int32_t { return theusgo_take(c.handle(), c.small(), c.err()) },
	"result_buf": func(c *caller) _Ctype_int32_t {
		return theusgo_result_buf(c.handle(), c.uint64(), c.out(), c.err())
	},
	"cancel":     func(c *caller) _Ctype_int32_t { return theusgo_cancel(c.handle(), c.err()) },
	"queue_open": func(c *caller) _Ctype_int32_t { return theusgo_queue_open(c.handle(), c.flags(), c.out(), c.err()) },
	"queue_fd": func(c *caller) _Ctype_int32_t {
		return theusgo_queue_fd(c.handle(), orNil(c, new(_Ctype_int32_t)), c.err())
	},
	"poll": func(c *caller) _Ctype_int32_t {
		events := make([]_Ctype_struct_theus_event, 256) // no call writes more
		return theusgo_poll(c.handle(), orNil(c, &events[0]), c.uint64(), c.number(), c.err())
	},
	"collect": func(c *caller) _Ctype_int32_t {
		events, results := make([]_Ctype_struct_theus_event, 256), make([]_Ctype_struct_theus_small, 256)
		results[0].struct_size = c.size(unsafe.Sizeof(results[0]))
		return theusgo_collect(c.handle(), orNil(c, &events[0]), orNil(c, &results[0]), c.uint64(), c.number(), c.err())
	},
}

func exportNames() []string {
	names := make([]string, 0, len(exports))
	for name := range exports {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestTheFuzzerCallsEveryExport(t *testing.T) {
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") {
			continue
		}
		source, err := os.ReadFile(file.Name())
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`(?m)^//export theusgo_(\w+)$`).FindAllSubmatch(source, -1) {
			names = append(names, string(found[1]))
		}
	}
	slices.Sort(names)
	require.Equal(t, names, exportNames())
}

// caller makes one program's calls.
type caller struct {
	t       *testing.T
	script  []byte
	handles []_Ctype_uint64_t // all that were ever given
	given   []*_Ctype_uint64_t
	values  []*_Ctype_struct_theus_value
	error   *_Ctype_struct_theus_error
	silent  bool // the call has no error struct
	live    int  // entries of the table before
}

func newCaller(t *testing.T, script []byte) *caller {
	c := &caller{t: t, script: script, live: liveHandles()}
	o := _Ctype_struct_theus_options{struct_size: _Ctype_uint32_t(unsafe.Sizeof(_Ctype_struct_theus_options{})), heap_bytes: 1 << 20}
	c.harmless(&o)
	var engine _Ctype_uint64_t
	require.EqualValues(t, 0, theusgo_open(&o, &engine, nil))
	c.handles = append(c.handles, engine)
	return c
}

func liveHandles() int {
	handles.mu.RLock()
	defer handles.mu.RUnlock()
	return len(handles.slots) - len(handles.free)
}

// harmless keeps an engine from starting a real interpreter.
func (c *caller) harmless(o *_Ctype_struct_theus_options) {
	o.flags |= 1 // THEUS_OPEN_LAZY
	o.python, o.worker_main = cText("/nowhere/python"), cText("unused")
}

// check looks at the status of a call and takes note of the handles that it gave.
func (c *caller) check(name string, status _Ctype_int32_t) {
	switch {
	case status == 0, status > 0 && status <= 12, status >= 100 && status <= 103, status >= 200 && status <= 203:
	default:
		c.t.Fatalf("theus_%s gave %d: %s", name, status, messageOf(c.error))
	}
	if e := c.error; e != nil && int(e.struct_size) == int(unsafe.Sizeof(*e)) {
		require.Equal(c.t, status, e.code, "theus_%s", name)
		require.Equal(c.t, status != 0, messageOf(e) != "", "theus_%s: %q", name, messageOf(e))
		c.handles = append(c.handles, e.detail)
	} else if e != nil {
		require.Zero(c.t, e.code, "theus_%s wrote to an error struct without its size", name)
	}
	for _, out := range c.given {
		if *out != 0 {
			c.handles = append(c.handles, *out)
		}
	}
	for _, value := range c.values {
		c.handles = append(c.handles, value.blob)
	}
	c.error, c.silent, c.given, c.values = nil, false, nil, nil
}

func messageOf(e *_Ctype_struct_theus_error) string {
	if e == nil {
		return ""
	}
	var text []byte
	for _, b := range e.message {
		if b == 0 {
			return string(text)
		}
		text = append(text, byte(b))
	}
	return "a message without an end"
}

// end closes and releases all, twice, and looks for what is left.
func (c *caller) end() {
	for _, h := range c.handles {
		theusgo_close(h, 0, nil)
	}
	for range 2 {
		for _, h := range c.handles {
			theusgo_release(h)
		}
	}
	releasePending()
	for _, h := range c.handles {
		require.EqualValues(c.t, 2, theusgo_release(h), "THEUS_EBADF")
	}
	require.Equal(c.t, c.live, liveHandles())
	deadline := time.Now().Add(20 * time.Second)
	for mappedMemory() && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) // until goroutines that were at it have let go
	}
	require.False(c.t, mappedMemory(), "shared memory is still mapped")
}

func mappedMemory() bool {
	maps, err := os.ReadFile("/proc/self/maps")
	return err != nil || strings.Contains(string(maps), "memfd:")
}

// ---- arguments ---------------------------------------------------------

// pick is the script's next choice among n; 0 when it has ended.
func (c *caller) pick(n int) int {
	if len(c.script) == 0 {
		return 0
	}
	choice := int(c.script[0]) % n
	c.script = c.script[1:]
	return choice
}

func orNil[T any](c *caller, p *T) *T {
	if c.pick(8) == 7 {
		return nil
	}
	return p
}

func (c *caller) handle() _Ctype_uint64_t {
	strange := []_Ctype_uint64_t{0, 1, handleBase, 1<<32 | handleBase, math.MaxUint64, math.MaxUint32 << 32, 1<<32 | (handleBase - 1)}
	switch i := c.pick(64); {
	case i < 20:
		return c.handles[0]
	case i < 20+len(strange):
		return strange[i-20]
	default:
		return c.handles[c.pick(len(c.handles))]
	}
}

func (c *caller) out() *_Ctype_uint64_t {
	out := orNil(c, new(_Ctype_uint64_t))
	if out != nil {
		c.given = append(c.given, out)
	}
	return out
}

func (c *caller) number() *_Ctype_uint64_t { return orNil(c, new(_Ctype_uint64_t)) }

func (c *caller) err() *_Ctype_struct_theus_error {
	e := new(_Ctype_struct_theus_error)
	e.struct_size = c.size(unsafe.Sizeof(*e))
	if e.struct_size > _Ctype_uint32_t(unsafe.Sizeof(*e)) {
		e.struct_size = 0 // one that is larger promises memory that is not there
	}
	c.error = orNil(c, e)
	return c.error
}

// size is a struct_size, mostly the right one.
func (c *caller) size(right uintptr) _Ctype_uint32_t {
	sizes := []_Ctype_uint32_t{0, 1, _Ctype_uint32_t(right) - 1, math.MaxUint32, 1 << 20, 1 << 31}
	if i := c.pick(32); i < len(sizes) && i > 0 {
		return sizes[i-1]
	}
	return _Ctype_uint32_t(right)
}

func (c *caller) int32() _Ctype_int32_t {
	if i := c.pick(40); i < 34 {
		return _Ctype_int32_t(i)
	}
	return []_Ctype_int32_t{-1, math.MinInt32, math.MaxInt32, 99, 4097, 256}[c.pick(6)]
}

func (c *caller) uint64() _Ctype_uint64_t {
	return []_Ctype_uint64_t{0, 1, 2, 3, 8, math.MaxUint64, 1 << 63, 1<<63 - 1, 1 << 62, 1 << 32, 1<<31 - 1, 1 << 31}[c.pick(12)]
}

func (c *caller) time() _Ctype_int64_t {
	return []_Ctype_int64_t{0, 1, -1, math.MinInt64, math.MaxInt64}[c.pick(5)]
}

func (c *caller) flags() _Ctype_uint32_t {
	return []_Ctype_uint32_t{0, 1, 2, 3, 4, 7, 8, math.MaxUint32, 1 << 31}[c.pick(9)]
}

func (c *caller) shape() *_Ctype_int64_t {
	lengths := []_Ctype_int64_t{1, 2, 0, 3, 1000, -1, math.MaxInt64, math.MinInt64, 1 << 32, 1 << 31, 1 << 62}
	shape := make([]_Ctype_int64_t, 40) // more than an array may have
	for i := range shape {
		shape[i] = 1
		if i < 4 {
			shape[i] = lengths[c.pick(len(lengths))]
		}
	}
	return orNil(c, &shape[0])
}

var sampleTexts = []string{
	"x", "y", "a.b", "", "<f8", "|u1", `{"a": [1, 2]}`, `a\.b`, `\`, "a..b", "\xff\xfe", "größe", strings.Repeat("long", 25_000),
}

func (c *caller) text() *_Ctype_char {
	if i := c.pick(len(sampleTexts) + 1); i < len(sampleTexts) {
		return cText(sampleTexts[i])
	}
	return nil
}

// cText is a text that ends with NUL, exactly where its memory ends.
func cText(s string) *_Ctype_char {
	return (*_Ctype_char)(unsafe.Pointer(&append([]byte(s), 0)[0]))
}

func (c *caller) texts() **_Ctype_char {
	list := make([]*_Ctype_char, c.pick(4)+1) // the last one is NULL
	for i := range list[:len(list)-1] {
		list[i] = c.text()
	}
	return orNil(c, &list[0])
}

func (c *caller) options() *_Ctype_struct_theus_options {
	if len(c.handles) > 400 { // engines have descriptors
		return &_Ctype_struct_theus_options{}
	}
	o := &_Ctype_struct_theus_options{
		flags: c.flags(), workers: c.int32(), threads_per_worker: c.int32(), heap_bytes: c.uint64(), seed: c.uint64(),
		name: c.text(), cwd: c.text(), sys_path: c.texts(), preload: c.texts(), env: c.texts(),
	}
	o.struct_size = c.size(unsafe.Sizeof(*o))
	o.heap_bytes = min(o.heap_bytes, 1<<20) // what the machine has is not for this test
	c.harmless(o)
	return o
}

func (c *caller) view() *_Ctype_struct_theus_view {
	v := new(_Ctype_struct_theus_view)
	v.struct_size = min(c.size(unsafe.Sizeof(*v)), _Ctype_uint32_t(unsafe.Sizeof(*v)))
	return orNil(c, v)
}

func (c *caller) value() *_Ctype_struct_theus_value {
	v := new(_Ctype_struct_theus_value)
	v.struct_size = min(c.size(unsafe.Sizeof(*v)), _Ctype_uint32_t(unsafe.Sizeof(*v)))
	c.values = append(c.values, v)
	return orNil(c, v)
}

func (c *caller) small() *_Ctype_struct_theus_small {
	s := new(_Ctype_struct_theus_small)
	s.struct_size = min(c.size(unsafe.Sizeof(*s)), _Ctype_uint32_t(unsafe.Sizeof(*s)))
	return orNil(c, s)
}

// count is a length that belongs to memory of n entries: it may be too large only where that is refused unseen.
func (c *caller) count(n int, most uint64) _Ctype_uint64_t {
	return []_Ctype_uint64_t{_Ctype_uint64_t(n), 0, _Ctype_uint64_t(most + 1), 1 << 63, math.MaxUint64}[c.pick(5)]
}

func (c *caller) updates() (*_Ctype_struct_theus_update, _Ctype_uint64_t) {
	list := make([]_Ctype_struct_theus_update, c.pick(4)+1)
	for i := range list {
		u := &list[i]
		bytes := []byte(sampleTexts[c.pick(len(sampleTexts))] + "\x00")
		u.struct_size, u.op, u.path, u.codec, u.buf = c.size(unsafe.Sizeof(*u)), c.int32(), c.text(), c.int32(), c.handle()
		u.ptr, u.len = unsafe.Pointer(&bytes[0]), []_Ctype_uint64_t{_Ctype_uint64_t(len(bytes)), 0, 1 << 31, math.MaxUint64}[c.pick(4)]
		if c.pick(8) == 7 {
			u.ptr = nil
		}
	}
	return orNil(c, &list[0]), c.count(len(list), maxUpdates)
}

func (c *caller) spans() (*_Ctype_struct_theus_span, _Ctype_uint64_t) {
	list := make([]_Ctype_struct_theus_span, c.pick(4)+1)
	for i := range list {
		bytes := []byte(sampleTexts[c.pick(len(sampleTexts))] + "\x00")
		// Lengths beyond the heap are refused before anything is read.
		list[i].ptr, list[i].len = unsafe.Pointer(&bytes[0]), []_Ctype_uint64_t{_Ctype_uint64_t(len(bytes)), 0, 1 << 40, 1 << 62, math.MaxUint64}[c.pick(5)]
		if c.pick(8) == 7 {
			list[i].ptr = nil
		}
	}
	return orNil(c, &list[0]), c.count(len(list), pool.MaxSpans)
}

func (c *caller) call() *_Ctype_struct_theus_call {
	o := &_Ctype_struct_theus_call{
		flags: c.flags(), target: c.text(), in_codec: c.int32(), out_codec: c.int32(), timeout_ms: c.time(),
		retries: c.int32(), rng_key: c.uint64(), tag: c.uint64(),
	}
	for _, h := range []*_Ctype_uint64_t{&o.function, &o.at, &o.queue} {
		if c.pick(2) == 1 {
			*h = c.handle()
		}
	}
	o.struct_size = c.size(unsafe.Sizeof(*o))
	o.in, o.nin = c.spans()
	bufs := []_Ctype_uint64_t{c.handle(), c.handle()}
	keys := []*_Ctype_char{c.text(), c.text()}
	o.bufs, o.nbufs = orNil(c, &bufs[0]), c.count(len(bufs), maxHandles)
	o.keys, o.nkeys = orNil(c, &keys[0]), c.count(len(keys), maxHandles)
	return orNil(c, o)
}
