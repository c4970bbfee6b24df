package main

/*
#include <stdlib.h>
#include "theus.h"
*/
import "C"

import (
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/theus-project/theus-go/engine"
	"github.com/theus-project/theus-go/pool"
)

//export theusgo_define
func theusgo_define(h C.uint64_t, name *C.char, code *C.theus_span, n C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_define", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("out")
		}
		parts, bad := spans(code, n, "code")
		if bad != nil {
			return bad
		}
		f, failure := e.Define(text(name), parts)
		if failure != nil {
			return failure
		}
		*out = C.uint64_t(handles.add(&functionObject{f, e.Engine}))
		return nil
	})
}

const maxHandles = 4096

// spans views C memory as slices, valid during the call.
func spans(list *C.theus_span, n C.uint64_t, name string) ([][]byte, error) {
	if n > 0 && list == nil {
		return nil, missing(name)
	}
	if n > pool.MaxSpans {
		return nil, &engine.ArgumentError{Text: fmt.Sprintf("%s has %d spans, more than %d", name, uint64(n), pool.MaxSpans)}
	}
	out := make([][]byte, n)
	room := C.uint64_t(1 << 56) // what five levels of page tables reach
	for i := range out {
		s := (*C.theus_span)(unsafe.Add(unsafe.Pointer(list), i*int(unsafe.Sizeof(*list))))
		if s.len > 0 && s.ptr == nil {
			return nil, missing(fmt.Sprintf("%s[%d].ptr", name, i))
		}
		if s.len > room {
			return nil, &engine.ArgumentError{Text: fmt.Sprintf("up to %s[%d] the lengths add up to more than any address space", name, i)}
		}
		room -= s.len
		out[i] = unsafe.Slice((*byte)(s.ptr), s.len)
	}
	return out, nil
}

//export theusgo_execute
func theusgo_execute(h C.uint64_t, c *C.theus_call, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_execute", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		if c == nil || out == nil {
			return missing("call or out")
		}
		request, bad := taskCall(e.Engine, c)
		if bad != nil {
			return bad
		}
		o := &taskObject{owner: e.Engine, created: make(chan struct{})}
		handle := handles.add(o)
		request.Handle = handle
		task, failure := e.Execute(request)
		if failure != nil {
			handles.take(handle)
			return failure
		}
		o.task = task
		close(o.created)
		*out = C.uint64_t(handle)
		return nil
	})
}

//export theusgo_run
func theusgo_run(h C.uint64_t, c *C.theus_call, out *C.uint64_t, small *C.theus_small, err *C.theus_error) C.int32_t {
	return call("theus_run", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		if c == nil || out == nil || small == nil {
			return missing("call, out or small")
		}
		if uintptr(small.struct_size) < unsafe.Sizeof(*small) {
			return badStruct("theus_small")
		}
		request, bad := taskCall(e.Engine, c)
		if bad != nil {
			return bad
		}
		if request.Queue != nil {
			return &engine.ArgumentError{Text: "theus_run takes no theus_call.queue: it waits itself; see theus_execute"}
		}
		task, failure := e.Execute(request)
		if failure != nil {
			return failure
		}
		if task.Look() && giveSmall(small, task.Outcome()) {
			task.Release()
			return nil
		}
		o := &taskObject{owner: e.Engine, created: make(chan struct{}), task: task}
		close(o.created)
		*out = C.uint64_t(handles.add(o))
		return nil
	})
}

// taskCall converts a theus_call; everything but the spans is copied.
func taskCall(owner *engine.Engine, c *C.theus_call) (engine.Call, error) {
	if uintptr(c.struct_size) < unsafe.Sizeof(*c) {
		return engine.Call{}, badStruct("theus_call")
	}
	out := engine.Call{
		Target: text(c.target), InCodec: uint8(c.in_codec), OutCodec: uint8(c.out_codec),
		Learn: c.flags&C.THEUS_CALL_NO_LEARN == 0, Retries: max(0, int(c.retries)),
		RNGKey: uint64(c.rng_key), Tag: uint64(c.tag),
	}
	if c.timeout_ms > 0 {
		out.Timeout = max(milliseconds(c.timeout_ms), time.Millisecond)
	}
	if c.in_codec < 0 || c.in_codec > C.THEUS_CODEC_PICKLE || c.out_codec < 0 || c.out_codec > C.THEUS_CODEC_PICKLE {
		return out, &engine.ArgumentError{Text: "theus_call.in_codec or out_codec is unknown"}
	}
	if out.OutCodec == pool.CodecNone {
		out.OutCodec = pool.CodecPickle
	}
	const maxTarget = 1024
	if len(out.Target) > maxTarget {
		return out, &engine.ArgumentError{Text: "theus_call.target is longer than 1024 bytes"}
	}
	var err error
	if out.In, err = spans(c.in, c.nin, "theus_call.in"); err != nil {
		return out, err
	}
	return out, taskHandles(owner, c, &out)
}

// taskHandles resolves the handles and names of a theus_call. What belongs to another engine is foreign: its functions are numbered
// like this one's, nobody would tell this one's workers when its arrays are gone, and who polls its queues knows none of this one's
// tasks.
func taskHandles(owner *engine.Engine, c *C.theus_call, out *engine.Call) error {
	if c.function != 0 {
		f, err := lookup[*functionObject](uint64(c.function))
		if err != nil || f.owner != owner {
			return errBadHandle
		}
		out.Function = f.Function
	}
	if c.at != 0 {
		s, err := lookup[*snapObject](uint64(c.at))
		if err != nil || s.owner != owner {
			return errBadHandle
		}
		out.At = s.Snapshot
	}
	if c.queue != 0 {
		q, err := lookup[*queueObject](uint64(c.queue))
		if err != nil || q.owner != owner {
			return errBadHandle
		}
		out.Queue = q.Queue
	}
	if (c.nbufs > 0 && c.bufs == nil) || (c.nkeys > 0 && c.keys == nil) || c.nbufs > maxHandles || c.nkeys > maxHandles {
		return &engine.ArgumentError{Text: "theus_call.bufs or keys is NULL, or has more than 4096 entries"}
	}
	for _, h := range unsafe.Slice(c.bufs, c.nbufs) {
		b, err := lookup[*bufObject](uint64(h))
		if err != nil || b.owner != owner {
			return errBadHandle
		}
		out.Bufs = append(out.Bufs, b.Buf)
	}
	for _, k := range unsafe.Slice(c.keys, c.nkeys) {
		out.Keys = append(out.Keys, text(k))
	}
	return nil
}

//export theusgo_wait
func theusgo_wait(h C.uint64_t, timeout C.int64_t, err *C.theus_error) C.int32_t {
	return call("theus_wait", err, h, func() error {
		o, bad := lookup[*taskObject](uint64(h))
		if bad != nil {
			return bad
		}
		if o.get().Wait(milliseconds(timeout)) {
			return nil
		}
		return &statusError{code: C.THEUS_ETIMEDOUT, text: "the task has not ended yet"}
	})
}

//export theusgo_look
func theusgo_look(h C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_look", err, h, func() error {
		o, bad := lookup[*taskObject](uint64(h))
		if bad != nil {
			return bad
		}
		if o.get().Look() {
			return nil
		}
		return errNotEnded
	})
}

//export theusgo_announce
func theusgo_announce(h, queue, tag C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_announce", err, h, func() error {
		o, bad := lookup[*taskObject](uint64(h))
		if bad != nil {
			return bad
		}
		q, bad := lookup[*queueObject](uint64(queue))
		if bad != nil || q.owner != o.owner {
			return errBadHandle
		}
		o.get().Announce(q.Queue, uint64(h), uint64(tag))
		return nil
	})
}

// errNotEnded is made once: looking is frequent, and mostly says this.
var errNotEnded = &statusError{code: C.THEUS_EPENDING, text: "the task has not ended yet"}

//export theusgo_result
func theusgo_result(h C.uint64_t, out *C.theus_value, err *C.theus_error) C.int32_t {
	return call("theus_result", err, h, func() error {
		o, bad := lookup[*taskObject](uint64(h))
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("out")
		}
		if uintptr(out.struct_size) < unsafe.Sizeof(*out) {
			return badStruct("theus_value")
		}
		return o.read(func(task *pool.Task) error {
			outcome := task.Outcome()
			if failure := giveValue(out, outcome); failure != nil {
				return failure
			}
			return endOf(outcome)
		})
	})
}

//export theusgo_take
func theusgo_take(h C.uint64_t, out *C.theus_small, err *C.theus_error) C.int32_t {
	return call("theus_take", err, h, func() error {
		o, bad := lookup[*taskObject](uint64(h))
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("out")
		}
		if uintptr(out.struct_size) < unsafe.Sizeof(*out) {
			return badStruct("theus_small")
		}
		return o.take(uint64(h), out)
	})
}

// take is theus_take: its handle is h.
func (o *taskObject) take(h uint64, out *C.theus_small) error {
	out.taken = 0
	err := o.read(func(task *pool.Task) error {
		giveSmall(out, task.Outcome())
		return nil
	})
	if err != nil || out.taken == 0 {
		return err
	}
	if err = release(h); err != nil { // by another call meanwhile
		out.taken = 0
	}
	return err
}

// giveSmall fills in the result if it is one that theus_take gives, and reports whether it is.
func giveSmall(out *C.theus_small, o *pool.Outcome) bool {
	out.taken = 0
	inline := o.Value.Inline
	if o.Status != pool.OK || len(o.Arrays) > 0 || o.Value.Segment != nil || len(inline) > 1 {
		return false
	}
	out.len = 0
	if len(inline) == 1 {
		if len(inline[0]) > len(out.data) {
			return false
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&out.data)), len(out.data)), inline[0])
		out.len = C.uint64_t(len(inline[0]))
	}
	out.codec, out.taken = C.int32_t(o.Value.Codec), 1
	return true
}

func giveValue(out *C.theus_value, o *pool.Outcome) error {
	out.codec, out.nbufs = C.int32_t(o.Value.Codec), C.uint64_t(len(o.Arrays))
	if o.Value.Codec == pool.CodecNone {
		return nil
	}
	b, err := valueBlob(&o.Value)
	if err != nil {
		return err
	}
	out.blob = C.theus_blob(handles.add(b))
	out.spans, out.nspans = b.spans, C.uint64_t(b.count)
	return nil
}

// endOf turns an outcome into the error that theus_result reports.
func endOf(o *pool.Outcome) error {
	switch o.Status {
	case pool.OK:
		return nil
	case pool.Failed:
		return &statusError{C.THEUS_TASK_FAILED, o.Message, map[string]any{"type": o.Type, "message": o.Text, "traceback": o.Traceback}}
	case pool.Crashed:
		return &statusError{C.THEUS_TASK_CRASHED, o.Message, map[string]any{"message": o.Message, "task": o.Task, "pid": o.PID,
			"signal": o.Signal, "exit": o.Exit, "reason": o.Reason, "oom": o.OOM, "peak_rss": o.PeakRSS}}
	}
	return &statusError{code: C.int32_t(o.Status), text: o.Message}
}

//export theusgo_result_buf
func theusgo_result_buf(h, i C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_result_buf", err, h, func() error {
		o, bad := lookup[*taskObject](uint64(h))
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("out")
		}
		return o.read(func(task *pool.Task) error {
			b, failure := o.owner.ResultBuf(task, int(min(i, 1<<31)))
			return giveBuf(out, b, o.owner, failure)
		})
	})
}

//export theusgo_cancel
func theusgo_cancel(h C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_cancel", err, h, func() error {
		o, bad := lookup[*taskObject](uint64(h))
		if bad == nil {
			o.owner.Pool().Cancel(o.get())
		}
		return bad
	})
}

//export theusgo_queue_open
func theusgo_queue_open(h C.uint64_t, flags C.uint32_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_queue_open", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("out")
		}
		q, failure := pool.NewQueue()
		if failure != nil {
			return &statusError{code: C.THEUS_ELIMIT, text: "eventfd: " + failure.Error()}
		}
		logs := flags&C.THEUS_QUEUE_LOGS != 0
		if logs {
			e.Pool().AnnounceLogs(q)
		}
		*out = C.uint64_t(handles.add(&queueObject{q, e.Engine, logs}))
		return nil
	})
}

//export theusgo_queue_fd
func theusgo_queue_fd(h C.uint64_t, fd *C.int32_t, err *C.theus_error) C.int32_t {
	return call("theus_queue_fd", err, h, func() error {
		q, bad := lookup[*queueObject](uint64(h))
		if bad != nil {
			return bad
		}
		if fd == nil {
			return missing("fd")
		}
		*fd = C.int32_t(q.FD())
		return nil
	})
}

var eventBuffers = sync.Pool{New: func() any { b := make([]pool.Event, 256); return &b }}

//export theusgo_poll
func theusgo_poll(h C.uint64_t, events *C.theus_event, capacity C.uint64_t, n *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_poll", err, h, func() error {
		return takeEvents(uint64(h), events, nil, capacity, n)
	})
}

//export theusgo_collect
func theusgo_collect(h C.uint64_t, events *C.theus_event, results *C.theus_small, capacity C.uint64_t, n *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_collect", err, h, func() error {
		if results == nil {
			return missing("results")
		}
		if uintptr(results.struct_size) < unsafe.Sizeof(*results) {
			return badStruct("theus_small")
		}
		return takeEvents(uint64(h), events, results, capacity, n)
	})
}

// takeEvents moves events out of a queue, and with results what theus_take gives of each.
func takeEvents(h uint64, events *C.theus_event, results *C.theus_small, capacity C.uint64_t, n *C.uint64_t) error {
	q, bad := lookup[*queueObject](h)
	if bad != nil {
		return bad
	}
	if n == nil || (events == nil && capacity > 0) {
		return missing("events or n")
	}
	buffer := eventBuffers.Get().(*[]pool.Event)
	defer eventBuffers.Put(buffer)
	taken := (*buffer)[:q.Take((*buffer)[:min(uint64(capacity), uint64(len(*buffer)))])]
	for i, e := range taken {
		c := (*C.theus_event)(unsafe.Add(unsafe.Pointer(events), i*int(unsafe.Sizeof(*events))))
		kind := C.int32_t(C.THEUS_EVENT_TASK)
		if e.Log {
			kind = C.THEUS_EVENT_LOG
		}
		*c = C.theus_event{task: C.theus_task(e.Handle), tag: C.uint64_t(e.Tag), status: C.int32_t(e.Status), kind: kind}
		if results == nil {
			continue
		}
		small := (*C.theus_small)(unsafe.Add(unsafe.Pointer(results), i*int(unsafe.Sizeof(*results))))
		small.taken = 0
		if o, err := lookup[*taskObject](e.Handle); err == nil {
			_ = o.take(e.Handle, small) // released by another call meanwhile: nobody wants it
		}
	}
	*n = C.uint64_t(len(taken))
	return nil
}
