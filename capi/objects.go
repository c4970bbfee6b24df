package main

/*
#include <stdlib.h>
#include "theus.h"
*/
import "C"

import (
	"errors"
	"sync"
	"unsafe"

	"github.com/theus-project/theus-go/engine"
	"github.com/theus-project/theus-go/pool"
)

// What handles name. Each knows its engine, so that a panic poisons the right one.
type (
	engineObject struct{ *engine.Engine }
	snapObject   struct {
		*engine.Snapshot
		owner *engine.Engine
	}
	functionObject struct {
		*pool.Function
		owner *engine.Engine
	}
	streamObject struct {
		*engine.Stream
		owner *engine.Engine
	}
	windowObject struct {
		*engine.Window
		owner *engine.Engine
	}
	queueObject struct {
		*pool.Queue
		owner *engine.Engine
		logs  bool
	}
)

// bufObject is an array with the C string that theus_view.descr points to.
type bufObject struct {
	*engine.Buf
	owner *engine.Engine
	descr *C.char
	gone  bool // descr is free
}

// taskObject enters the table before its task exists: an event may name the handle before Execute has returned.
type taskObject struct {
	owner   *engine.Engine
	created chan struct{} // closed when task is set
	task    *pool.Task

	results  sync.RWMutex // held while the outcome is read; guards released
	released bool
}

// read gives the outcome to f. Another thread may release the task meanwhile; its memory stays until f is done.
func (o *taskObject) read(f func(*pool.Task) error) error {
	task := o.get()
	o.results.RLock()
	defer o.results.RUnlock()
	switch {
	case o.released:
		return errBadHandle
	case !task.Ended():
		return errNotEnded
	}
	return f(task)
}

func (o *taskObject) release() {
	task := o.get()
	o.results.Lock()
	o.released = true
	o.results.Unlock()
	task.Release()
}

func (o *taskObject) get() *pool.Task {
	<-o.created
	return o.task
}

// blob is memory for C, with the spans of a value in it.
type blob struct {
	data  unsafe.Pointer
	size  int
	spans *C.theus_span // nil: one range
	count int
	free  func()
}

// newBlob copies bytes into C memory.
func newBlob(b []byte) *blob {
	data := C.malloc(C.size_t(max(len(b), 1)))
	copy(unsafe.Slice((*byte)(data), len(b)), b)
	return &blob{data: data, size: len(b), free: func() { C.free(data) }}
}

// valueBlob makes a value's spans readable and writable for C: small ones are copied, a segment is mapped privately.
func valueBlob(v *pool.Value) (*blob, error) {
	if v.Segment != nil {
		return segmentBlob(v)
	}
	total := 0
	for _, s := range v.Inline {
		total += aligned(len(s))
	}
	spans := int(unsafe.Sizeof(C.theus_span{})) * len(v.Inline)
	memory := C.malloc(C.size_t(aligned(spans) + total + 1))
	b := &blob{data: memory, spans: (*C.theus_span)(memory), count: len(v.Inline), free: func() { C.free(memory) }}
	at := unsafe.Add(memory, aligned(spans))
	for i, s := range v.Inline {
		copy(unsafe.Slice((*byte)(at), len(s)), s)
		*b.span(i) = C.theus_span{ptr: at, len: C.uint64_t(len(s))}
		at = unsafe.Add(at, aligned(len(s)))
	}
	if b.count > 0 {
		b.data, b.size = b.span(0).ptr, len(v.Inline[0])
	}
	return b, nil
}

func aligned(n int) int { return (n + 63) &^ 63 }

func segmentBlob(v *pool.Value) (*blob, error) {
	base, unmap, err := v.Segment.PrivateMap()
	if err != nil {
		return nil, err
	}
	memory := C.malloc(C.size_t(int(unsafe.Sizeof(C.theus_span{}))*len(v.Spans) + 1))
	v.Segment.Ref()
	seg := v.Segment
	b := &blob{spans: (*C.theus_span)(memory), count: len(v.Spans), free: func() {
		unmap()
		seg.Unref()
		C.free(memory)
	}}
	for i, s := range v.Spans {
		*b.span(i) = C.theus_span{ptr: address(base + uintptr(s.Offset)), len: C.uint64_t(s.Len)}
	}
	if b.count > 0 {
		b.data, b.size = b.span(0).ptr, int(v.Spans[0].Len)
	}
	return b, nil
}

func (b *blob) span(i int) *C.theus_span {
	return (*C.theus_span)(unsafe.Add(unsafe.Pointer(b.spans), i*int(unsafe.Sizeof(C.theus_span{}))))
}

// address turns a mapped address into a pointer; it is not Go memory, so nothing moves.
func address(a uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }

var errOpen = errors.New("the engine is open; theus_close it first")

// release lets go of what a handle names.
func release(h uint64) error {
	if e, ok := handles.get(h).(*engineObject); ok && !e.Closed() {
		return &engine.ArgumentError{Text: errOpen.Error()}
	}
	switch o := handles.take(h).(type) {
	case *engineObject:
	case *bufObject:
		o.Buf.Release()
		o.freeDescr()
	case *snapObject:
		o.Snapshot.Release()
	case *streamObject: // it has nothing of its own
	case *windowObject:
		o.Window.Release()
	case *functionObject:
		o.owner.Pool().Forget(o.Function)
	case *taskObject:
		o.release()
	case *queueObject:
		if o.logs {
			o.owner.Pool().QuietLogs(o.Queue)
		}
		o.Queue.Close()
	case *blob:
		o.free()
	default:
		return errBadHandle
	}
	return nil
}

// ownerOf finds the engine that a handle belongs to, or nil.
func ownerOf(h uint64) *engine.Engine {
	switch o := handles.get(h).(type) {
	case *engineObject:
		return o.Engine
	case *bufObject:
		return o.owner
	case *snapObject:
		return o.owner
	case *streamObject:
		return o.owner
	case *windowObject:
		return o.owner
	case *functionObject:
		return o.owner
	case *taskObject:
		return o.owner
	case *queueObject:
		return o.owner
	}
	return nil
}

func (o *bufObject) freeDescr() {
	descrs.Lock()
	defer descrs.Unlock()
	o.gone = true
	C.free(unsafe.Pointer(o.descr))
	o.descr = nil
}

// descrOf gives theus_view.descr its C string, made once; nil after the release.
func (o *bufObject) descrOf(s string) *C.char {
	descrs.Lock()
	defer descrs.Unlock()
	if o.gone {
		return nil
	}
	if o.descr == nil {
		o.descr = C.CString(s)
	}
	return o.descr
}

var descrs sync.Mutex // guards bufObject.descr and gone
