package main

/*
#include "theus.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/theus-project/theus-go/engine"
	"github.com/theus-project/theus-go/pool"
)

// opened finds what both kinds of series begin with.
func opened(h C.uint64_t, descr *C.char, itemsize C.uint64_t, ndim C.int32_t, shape *C.int64_t, out *C.uint64_t) (*engineObject, pool.Layout, error) {
	e, err := usable(h)
	if err != nil {
		return nil, pool.Layout{}, err
	}
	if descr == nil || out == nil {
		return nil, pool.Layout{}, missing("descr or out")
	}
	layout, err := layoutOf(C.GoString(descr), uint64(itemsize), ndim, shape)
	return e, layout, err
}

//export theusgo_stream_open
func theusgo_stream_open(h C.uint64_t, key, descr *C.char, itemsize C.uint64_t, ndim C.int32_t, shape *C.int64_t, keep C.uint64_t, flags C.uint32_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_stream_open", err, h, func() error {
		e, layout, bad := opened(h, descr, itemsize, ndim, shape, out)
		if bad != nil {
			return bad
		}
		if keep > maxKeep || flags&^C.THEUS_DROP_OLDEST != 0 {
			return &engine.ArgumentError{Text: fmt.Sprintf("keep is more than %d, or flags has bits other than THEUS_DROP_OLDEST", maxKeep)}
		}
		s, failure := e.OpenStream(text(key), layout, engine.StreamOptions{Keep: int(keep), DropOldest: flags&C.THEUS_DROP_OLDEST != 0})
		if failure != nil {
			return failure
		}
		*out = C.uint64_t(handles.add(&streamObject{s, e.Engine}))
		return nil
	})
}

const maxKeep = 1 << 20

//export theusgo_stream_next
func theusgo_stream_next(h C.uint64_t, timeoutMS C.int64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_stream_next", err, h, func() error {
		s, bad := lookup[*streamObject](uint64(h))
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("out")
		}
		b, failure := s.Next(milliseconds(timeoutMS))
		return giveBuf(out, b, s.owner, failure)
	})
}

//export theusgo_window_open
func theusgo_window_open(h C.uint64_t, key, descr *C.char, itemsize C.uint64_t, ndim C.int32_t, shape *C.int64_t, rows C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_window_open", err, h, func() error {
		e, layout, bad := opened(h, descr, itemsize, ndim, shape, out)
		if bad != nil {
			return bad
		}
		w, failure := e.OpenWindow(text(key), layout, uint64(rows))
		if failure != nil {
			return failure
		}
		*out = C.uint64_t(handles.add(&windowObject{w, e.Engine}))
		return nil
	})
}

//export theusgo_window_append
func theusgo_window_append(h C.uint64_t, rows unsafe.Pointer, n C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_window_append", err, h, func() error {
		w, bad := lookup[*windowObject](uint64(h))
		if bad != nil {
			return bad
		}
		if out == nil || (rows == nil && n > 0) {
			return missing("rows or out")
		}
		b, failure := w.Append(uintptr(rows), uint64(n))
		return giveBuf(out, b, w.owner, failure)
	})
}
