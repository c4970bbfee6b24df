package main

/*
#cgo CFLAGS: -I${SRCDIR}/../include -fvisibility=hidden
#include <stdlib.h>
#include "theus.h"
*/
import "C"

import (
	"errors"
	"os"
	"time"
	"unsafe"

	"github.com/theus-project/theus-go/engine"
)

// version is set by the linker: -X main.version=…
var version = "0.0.0+unknown"

var versionText = C.CString(version)

// The one export without call(): it gives a constant, which cannot panic, and has no status to give.
//
//export theusgo_version
func theusgo_version() *C.char { return versionText }

//export theusgo_release
func theusgo_release(h C.uint64_t) C.int32_t {
	return call("theus_release", nil, h, func() error { return release(uint64(h)) })
}

//export theusgo_release_later
func theusgo_release_later(h C.uint64_t) C.int32_t {
	return call("theus_release_later", nil, h, func() error {
		startReaper()
		pushPending(uint64(h))
		return nil
	})
}

//export theusgo_open
func theusgo_open(opts *C.theus_options, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_open", err, 0, func() error {
		if out == nil {
			return missing("out")
		}
		o, bad := options(opts)
		if bad != nil {
			return bad
		}
		orderForks()
		e, failure := openWithThreads(o)
		if failure != nil {
			return failure
		}
		startReaper()
		*out = C.uint64_t(handles.add(&engineObject{e}))
		return nil
	})
}

func options(c *C.theus_options) (engine.Options, error) {
	o := engine.Options{Env: os.Environ()}
	if c == nil {
		return o, nil
	}
	if uintptr(c.struct_size) < unsafe.Sizeof(*c) {
		return o, badStruct("theus_options")
	}
	if c.flags&^C.THEUS_OPEN_LAZY != 0 {
		return o, &engine.ArgumentError{Text: "theus_options.flags has unknown bits"}
	}
	o.Lazy = c.flags&C.THEUS_OPEN_LAZY != 0
	o.Workers, o.Threads = int(c.workers), int(c.threads_per_worker)
	if o.Workers > maxWorkers {
		return o, &engine.ArgumentError{Text: "theus_options.workers is more than 4096"}
	}
	o.HeapBytes, o.Seed = uint64(c.heap_bytes), uint64(c.seed)
	o.Name, o.Python, o.WorkerMain, o.Cwd = text(c.name), text(c.python), text(c.worker_main), text(c.cwd)
	o.SysPath, o.Preload = texts(c.sys_path), texts(c.preload)
	if c.env != nil {
		o.Env = texts(c.env)
	}
	return o, nil
}

const maxWorkers = 4096

func text(s *C.char) string {
	if s == nil {
		return ""
	}
	return C.GoString(s)
}

// texts copies a NULL-ended list; nil stays nil, an empty list is empty.
func texts(list **C.char) []string {
	if list == nil {
		return nil
	}
	out := []string{}
	for p := list; *p != nil; p = (**C.char)(unsafe.Add(unsafe.Pointer(p), unsafe.Sizeof(p))) {
		out = append(out, C.GoString(*p))
	}
	return out
}

func missing(argument string) error {
	return &engine.ArgumentError{Text: argument + " is NULL"}
}

// milliseconds turns a time of theus.h into a duration; negative means for ever and stays so.
func milliseconds(ms C.int64_t) time.Duration {
	if ms < 0 {
		return -1
	}
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(int64(ms), most)) * time.Millisecond
}

//export theusgo_drain
func theusgo_drain(h C.uint64_t, timeout C.int64_t, err *C.theus_error) C.int32_t {
	return call("theus_drain", err, h, func() error {
		e, bad := lookup[*engineObject](uint64(h))
		if bad != nil {
			return bad
		}
		if failure := e.Check(); errors.As(failure, new(*engine.PoisonedError)) {
			return failure // a closed engine, however, has no task left
		}
		if !e.Drain(milliseconds(timeout)) {
			return &statusError{code: C.THEUS_ETIMEDOUT, text: "tasks are still queued or running"}
		}
		return nil
	})
}

//export theusgo_close
func theusgo_close(h C.uint64_t, grace C.int64_t, err *C.theus_error) C.int32_t {
	return call("theus_close", err, h, func() error {
		e, bad := lookup[*engineObject](uint64(h))
		if bad == nil {
			e.Close(milliseconds(grace))
		}
		return bad
	})
}

//export theusgo_stats
func theusgo_stats(h C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_stats", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		b, failure := e.Stats()
		return giveBlob(out, b, failure)
	})
}

//export theusgo_reap
func theusgo_reap(h C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_reap", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		return giveJSON(out, e.Reap(releasePending))
	})
}

//export theusgo_logs
func theusgo_logs(h C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_logs", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		records := e.Pool().Logs()
		if records == nil {
			return giveBlob(out, []byte("[]"), nil)
		}
		return giveJSON(out, records)
	})
}

//export theusgo_blob_data
func theusgo_blob_data(h C.uint64_t, ptr *unsafe.Pointer, length *C.uint64_t) C.int32_t {
	return call("theus_blob_data", nil, 0, func() error {
		b, bad := lookup[*blob](uint64(h))
		if bad != nil {
			return bad
		}
		if ptr == nil || length == nil {
			return missing("ptr or len")
		}
		*ptr, *length = b.data, C.uint64_t(b.size)
		return nil
	})
}

// usable finds an engine that is open and not poisoned.
func usable(h C.uint64_t) (*engineObject, error) {
	e, err := lookup[*engineObject](uint64(h))
	if err != nil {
		return nil, err
	}
	return e, e.Check()
}
