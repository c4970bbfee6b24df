package main

/*
#include <stdlib.h>
#include "theus.h"
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"unsafe"

	"github.com/theus-project/theus-go/engine"
	"github.com/theus-project/theus-go/pool"
)

// dtypes gives the numpy descr and item size of each THEUS_* dtype code.
var dtypes = []struct {
	descr string
	size  uint64
}{
	C.THEUS_BOOL: {"|b1", 1},
	C.THEUS_I8:   {"|i1", 1}, C.THEUS_U8: {"|u1", 1},
	C.THEUS_I16: {"<i2", 2}, C.THEUS_U16: {"<u2", 2},
	C.THEUS_I32: {"<i4", 4}, C.THEUS_U32: {"<u4", 4},
	C.THEUS_I64: {"<i8", 8}, C.THEUS_U64: {"<u8", 8},
	C.THEUS_F16: {"<f2", 2}, C.THEUS_F32: {"<f4", 4}, C.THEUS_F64: {"<f8", 8},
	C.THEUS_C64: {"<c8", 8}, C.THEUS_C128: {"<c16", 16},
}

func dtypeCode(descr string) C.int32_t {
	for code, d := range dtypes {
		if code != C.THEUS_OTHER && d.descr == descr {
			return C.int32_t(code)
		}
	}
	return C.THEUS_OTHER
}

//export theusgo_alloc
func theusgo_alloc(h C.uint64_t, key *C.char, dtype, ndim C.int32_t, shape *C.int64_t, flags C.uint32_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_alloc", err, h, func() error {
		if dtype <= C.THEUS_OTHER || int(dtype) >= len(dtypes) {
			return &engine.ArgumentError{Text: "dtype is not one of the THEUS_* codes; for others use theus_alloc_descr"}
		}
		d := dtypes[dtype]
		return alloc(h, key, d.descr, d.size, ndim, shape, flags, out)
	})
}

//export theusgo_alloc_descr
func theusgo_alloc_descr(h C.uint64_t, key, descr *C.char, itemsize C.uint64_t, ndim C.int32_t, shape *C.int64_t, flags C.uint32_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_alloc_descr", err, h, func() error {
		if descr == nil {
			return missing("descr")
		}
		return alloc(h, key, C.GoString(descr), uint64(itemsize), ndim, shape, flags, out)
	})
}

func alloc(h C.uint64_t, key *C.char, descr string, itemsize uint64, ndim C.int32_t, shape *C.int64_t, flags C.uint32_t, out *C.uint64_t) error {
	e, err := usable(h)
	if err != nil {
		return err
	}
	switch {
	case out == nil:
		return missing("out")
	case flags&^(C.THEUS_ORDER_F|C.THEUS_LIVE|C.THEUS_UNZEROED|C.THEUS_OUTPUT) != 0:
		return &engine.ArgumentError{Text: "flags has bits other than THEUS_ORDER_F, THEUS_LIVE, THEUS_UNZEROED and THEUS_OUTPUT"}
	case flags&C.THEUS_LIVE != 0 && flags&C.THEUS_OUTPUT != 0:
		return &engine.ArgumentError{Text: "an array is THEUS_LIVE or THEUS_OUTPUT, not both"}
	}
	layout, err := layoutOf(descr, itemsize, ndim, shape)
	if err != nil {
		return err
	}
	b, err := e.Alloc(text(key), layout, engine.AllocOptions{
		Fortran: flags&C.THEUS_ORDER_F != 0, Live: flags&C.THEUS_LIVE != 0, Unzeroed: flags&C.THEUS_UNZEROED != 0,
		Output: flags&C.THEUS_OUTPUT != 0,
	})
	return giveBuf(out, b, e.Engine, err)
}

// layoutOf is the layout of an array or a row; the engine looks at the lengths.
func layoutOf(descr string, itemsize uint64, ndim C.int32_t, shape *C.int64_t) (pool.Layout, error) {
	layout := pool.Layout{Descr: descr, Itemsize: itemsize}
	switch {
	case ndim < 0 || ndim > C.THEUS_MAX_NDIM:
		return layout, &engine.ArgumentError{Text: "ndim is not between 0 and 32"}
	case ndim > 0 && shape == nil:
		return layout, missing("shape")
	case itemsize > 1<<31-1:
		return layout, &engine.ArgumentError{Text: "itemsize is 2 GiB or more"}
	}
	for _, n := range unsafe.Slice(shape, ndim) {
		layout.Shape = append(layout.Shape, int64(n))
	}
	return layout, nil
}

func giveBuf(out *C.uint64_t, b *engine.Buf, owner *engine.Engine, err error) error {
	if err == nil {
		*out = C.uint64_t(handles.add(&bufObject{Buf: b, owner: owner}))
	}
	return err
}

//export theusgo_edit
func theusgo_edit(h C.uint64_t, key *C.char, flags C.uint32_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_edit", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		if key == nil || out == nil {
			return missing("key or out")
		}
		b, failure := e.Edit(C.GoString(key), flags&C.THEUS_BLANK != 0)
		return giveBuf(out, b, e.Engine, failure)
	})
}

//export theusgo_view_get
func theusgo_view_get(h C.uint64_t, out *C.theus_view, err *C.theus_error) C.int32_t {
	return call("theus_view_get", err, h, func() error {
		b, bad := lookup[*bufObject](uint64(h))
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("view")
		}
		if uintptr(out.struct_size) < unsafe.Sizeof(*out) {
			return badStruct("theus_view")
		}
		v, failure := b.View()
		if failure != nil {
			return failure
		}
		out.flags = viewFlag(v.Writable, C.THEUS_VIEW_WRITABLE) | viewFlag(v.Published, C.THEUS_VIEW_PUBLISHED) | viewFlag(v.Live, C.THEUS_VIEW_LIVE)
		out.dtype, out.ndim = dtypeCode(v.Layout.Descr), C.int32_t(len(v.Layout.Shape))
		out.data = address(v.Data)
		out.nbytes, out.itemsize = C.uint64_t(v.NBytes), C.uint64_t(v.Layout.Itemsize)
		out.version, out.segment = C.uint64_t(v.Version), C.uint64_t(v.Segment)
		out.descr = b.descrOf(v.Layout.Descr)
		for i := range v.Layout.Shape {
			out.shape[i], out.strides[i] = C.int64_t(v.Layout.Shape[i]), C.int64_t(v.Layout.Strides[i])
		}
		out.offset = C.uint64_t(v.Offset)
		return nil
	})
}

func viewFlag(on bool, bit C.uint32_t) C.uint32_t {
	if on {
		return bit
	}
	return 0
}

//export theusgo_snapshot
func theusgo_snapshot(h C.uint64_t, out, version *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_snapshot", err, h, func() error {
		e, bad := lookup[*engineObject](uint64(h))
		if bad != nil {
			return bad
		}
		if out == nil {
			return missing("out")
		}
		s, failure := e.Snapshot()
		if failure != nil {
			return failure
		}
		*out = C.uint64_t(handles.add(&snapObject{s, e.Engine}))
		if version != nil {
			*version = C.uint64_t(s.Version())
		}
		return nil
	})
}

//export theusgo_get
func theusgo_get(h C.uint64_t, key *C.char, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_get", err, h, func() error {
		s, bad := lookup[*snapObject](uint64(h))
		if bad != nil {
			return bad
		}
		if key == nil || out == nil {
			return missing("key or out")
		}
		b, failure := s.Get(C.GoString(key))
		return giveBuf(out, b, s.owner, failure)
	})
}

//export theusgo_get_json
func theusgo_get_json(h C.uint64_t, path *C.char, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_get_json", err, h, func() error {
		s, bad := lookup[*snapObject](uint64(h))
		if bad != nil {
			return bad
		}
		b, failure := s.JSON(text(path))
		return giveBlob(out, b, failure)
	})
}

//export theusgo_export
func theusgo_export(h C.uint64_t, path *C.char, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_export", err, h, func() error {
		s, bad := lookup[*snapObject](uint64(h))
		if bad != nil {
			return bad
		}
		b, failure := s.Export(text(path))
		return giveBlob(out, b, failure)
	})
}

//export theusgo_heavy_keys
func theusgo_heavy_keys(h C.uint64_t, out *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_heavy_keys", err, h, func() error {
		s, bad := lookup[*snapObject](uint64(h))
		if bad != nil {
			return bad
		}
		return giveJSON(out, s.Keys())
	})
}

func giveJSON(out *C.uint64_t, v any) error {
	b, err := json.Marshal(v)
	return giveBlob(out, b, err)
}

func giveBlob(out *C.uint64_t, b []byte, err error) error {
	if err != nil {
		return err
	}
	if out == nil {
		return missing("out")
	}
	*out = C.uint64_t(handles.add(newBlob(b)))
	return nil
}

//export theusgo_cas
func theusgo_cas(h C.uint64_t, expected C.uint64_t, updates *C.theus_update, n C.uint64_t, flags C.uint32_t, version *C.uint64_t, err *C.theus_error) C.int32_t {
	return call("theus_cas", err, h, func() error {
		e, bad := usable(h)
		if bad != nil {
			return bad
		}
		if n > 0 && updates == nil {
			return missing("updates")
		}
		if n > maxUpdates || flags&^C.THEUS_STRICT != 0 {
			return &engine.ArgumentError{Text: "more than 2^20 updates, or flags with unknown bits"}
		}
		if n > 0 && (uintptr(updates.struct_size) < unsafe.Sizeof(*updates) || updates.struct_size > maxUpdateSize) {
			return badStruct("theus_update")
		}
		list := make([]engine.Update, n)
		for i := range list {
			u := (*C.theus_update)(unsafe.Add(unsafe.Pointer(updates), i*int(updates.struct_size)))
			if u.struct_size != updates.struct_size { // else the next one is not where this one seems to end
				return badStruct(fmt.Sprintf("theus_update[%d]", i))
			}
			if list[i], bad = update(e.Engine, u); bad != nil {
				return bad
			}
		}
		v, failure := e.CAS(uint64(expected), list, flags&C.THEUS_STRICT != 0)
		if version != nil {
			*version = C.uint64_t(v)
		}
		return failure
	})
}

const (
	maxUpdates    = 1 << 20
	maxUpdateSize = 1024 // bytes of a theus_update, however it grows: a size that was never set leads anywhere
)

func update(owner *engine.Engine, u *C.theus_update) (engine.Update, error) {
	if u.path == nil {
		return engine.Update{}, missing("theus_update.path")
	}
	out := engine.Update{Kind: engine.UpdateKind(u.op), Path: C.GoString(u.path)}
	switch out.Kind {
	case engine.SetHeavy:
		b, err := lookup[*bufObject](uint64(u.buf))
		if err != nil {
			return out, err
		}
		if b.owner != owner {
			return out, fmt.Errorf("the array for heavy key %q belongs to another engine: %w", out.Path, errBadHandle)
		}
		out.Buf = b.Buf
	case engine.Set:
		if u.len > 0 && u.ptr == nil {
			return out, missing("theus_update.ptr")
		}
		if u.codec < 0 || u.codec > 255 || u.len > 1<<31-1 {
			return out, &engine.ArgumentError{Text: "theus_update.codec is unknown, or its value has 2 GiB or more: large data belongs into a heavy array"}
		}
		out.Codec, out.Bytes = uint8(u.codec), C.GoBytes(u.ptr, C.int(u.len))
	}
	return out, nil
}
