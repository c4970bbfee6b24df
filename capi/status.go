package main

/*
#include <string.h>
#include "theus.h"
*/
import "C"

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
	"unsafe"

	"github.com/theus-project/theus-go/engine"
	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// statusError gives a status directly, with its text and perhaps detail.
type statusError struct {
	code   C.int32_t
	text   string
	detail any
}

func (e *statusError) Error() string { return e.text }

// call runs the body of an export: a panic poisons the engine that handle belongs to, an error becomes a status.
func call(name string, err *C.theus_error, handle C.uint64_t, body func() error) C.int32_t {
	var failure error
	if p := guard.Catch(name, func() { inject(name); failure = body() }); p != nil {
		if e := ownerOf(uint64(handle)); e != nil {
			e.Poison(p)
		}
		return report(err, C.THEUS_EPANIC, p.Error()+"; please report it\n"+p.Stack, nil)
	}
	if failure == nil {
		return C.THEUS_OK
	}
	code, detail := classify(failure)
	return report(err, code, failure.Error(), detail)
}

// classify finds the status of an error, and what its detail says.
func classify(err error) (C.int32_t, any) {
	var (
		status   *statusError
		argument *engine.ArgumentError
		conflict *state.ConflictError
		future   *state.FutureVersionError
		op       *state.OpError
		full     *shm.FullError
		backlog  *pool.BacklogError
		limit    *shm.LimitError
		kernel   *shm.KernelError
		broken   *pool.BrokenError
		frames   *engine.StreamFullError
		poisoned *engine.PoisonedError
	)
	switch {
	case errors.As(err, &status):
		return status.code, status.detail
	case errors.Is(err, errBadHandle), errors.Is(err, engine.ErrReleased):
		return C.THEUS_EBADF, nil
	case errors.As(err, &poisoned):
		return C.THEUS_EPOISONED, nil
	case errors.As(err, &conflict):
		return C.THEUS_ECONFLICT, conflict
	case errors.As(err, &future):
		return C.THEUS_EVERSION, future
	case errors.As(err, &backlog):
		return C.THEUS_EHEAP, backlog
	case errors.As(err, &full):
		return C.THEUS_EHEAP, full
	case errors.As(err, &limit):
		return C.THEUS_ELIMIT, limit
	case errors.As(err, &kernel):
		return C.THEUS_EKERNEL, kernel
	case errors.As(err, &broken):
		return C.THEUS_ESPAWN, nil
	case errors.As(err, &frames):
		return C.THEUS_ETIMEDOUT, frames
	case errors.As(err, new(*engine.CodecError)):
		return C.THEUS_ECODEC, nil
	case errors.Is(err, engine.ErrNotFound):
		return C.THEUS_ENOTFOUND, nil
	case errors.Is(err, engine.ErrUnpublished):
		return C.THEUS_EUNPUBLISHED, nil
	case errors.Is(err, engine.ErrPublished):
		return C.THEUS_EPUBLISHED, nil
	case errors.Is(err, engine.ErrClosed), errors.Is(err, state.ErrClosed):
		return C.THEUS_ECLOSED, nil
	case errors.As(err, &argument), errors.As(err, &op), errors.Is(err, shm.ErrSize):
		return C.THEUS_EINVAL, nil
	}
	return C.THEUS_EKERNEL, nil
}

// report fills in the caller's error struct, as far as the caller's version of it reaches.
func report(err *C.theus_error, code C.int32_t, text string, detail any) C.int32_t {
	if err == nil || uintptr(err.struct_size) < unsafe.Sizeof(*err) {
		return code
	}
	err.code = code
	err.detail = 0
	message := []byte(text)
	if room := len(err.message) - 1; len(message) > room {
		message = message[:room]
		for len(message) > 0 && !utf8.Valid(message) {
			message = message[:len(message)-1]
		}
		if detail == nil {
			detail = map[string]string{"message": text} // the whole of it
		}
	}
	for i, c := range message {
		err.message[i] = C.char(c)
	}
	err.message[len(message)] = 0
	if detail != nil {
		if b, e := json.Marshal(detail); e == nil {
			err.detail = C.theus_blob(handles.add(newBlob(b)))
		}
	}
	return code
}

func badStruct(name string) error {
	return &engine.ArgumentError{Text: name + ".struct_size is not set, or the caller was compiled against an older, incompatible theus.h"}
}
