"""The C interface of theus in ctypes terms: the constants and structs of ``include/theus.h``.

Nothing here loads the library. Each struct has the field order of the header; `struct_size` is
set by `fresh`, so that a newer library knows what an older caller does not have.
"""

from __future__ import annotations

import ctypes as c
from typing import Any, Final, TypeVar

ABI_VERSION: Final = 1

OK: Final = 0
EINVAL: Final = 1
EBADF: Final = 2
ENOTFOUND: Final = 3
ECONFLICT: Final = 4
EVERSION: Final = 5
EPUBLISHED: Final = 6
EUNPUBLISHED: Final = 7
ECODEC: Final = 8
ECLOSED: Final = 9
EFORKED: Final = 10
ETIMEDOUT: Final = 11
EPENDING: Final = 12
EHEAP: Final = 100
ELIMIT: Final = 101
EKERNEL: Final = 102
ESPAWN: Final = 103
TASK_FAILED: Final = 200
TASK_CRASHED: Final = 201
TASK_TIMEOUT: Final = 202
TASK_CANCELLED: Final = 203
EPANIC: Final = 300
EPOISONED: Final = 301

OPEN_LAZY: Final = 1
ORDER_F: Final = 1
LIVE: Final = 2
BLANK: Final = 4
UNZEROED: Final = 8
OUTPUT: Final = 16
DROP_OLDEST: Final = 1
VIEW_WRITABLE: Final = 1
VIEW_PUBLISHED: Final = 2
VIEW_LIVE: Final = 4
MAX_NDIM: Final = 32

CODEC_NONE: Final = 0
CODEC_RAW: Final = 1
CODEC_JSON: Final = 2
CODEC_PICKLE: Final = 3

SET_HEAVY: Final = 1
DELETE_HEAVY: Final = 2
SET: Final = 3
DELETE: Final = 4
CHECK_HEAVY: Final = 5
CHECK: Final = 6
ANY_VERSION: Final = 2**64 - 1
STRICT: Final = 1

EVENT_TASK: Final = 1
EVENT_LOG: Final = 2
QUEUE_LOGS: Final = 1

# Codes of the dtypes that C knows by name; any other dtype travels by its descr alone.
DTYPE_CODES: Final = {
    "|b1": 1,
    "|i1": 2,
    "|u1": 3,
    "<i2": 4,
    "<u2": 5,
    "<i4": 6,
    "<u4": 7,
    "<i8": 8,
    "<u8": 9,
    "<f2": 10,
    "<f4": 11,
    "<f8": 12,
    "<c8": 13,
    "<c16": 14,
}


class Error(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("code", c.c_int32),
        ("detail", c.c_uint64),
        ("message", c.c_char * 496),
    ]


class Span(c.Structure):
    """A theus_span that the library fills in."""

    _fields_ = [("ptr", c.c_void_p), ("len", c.c_uint64)]


class GivenSpan(c.Structure):
    """A theus_span for the library: a c_char_p takes the address of bytes, and keeps them."""

    _fields_ = [("ptr", c.c_char_p), ("len", c.c_uint64)]


class Options(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("flags", c.c_uint32),
        ("workers", c.c_int32),
        ("threads_per_worker", c.c_int32),
        ("heap_bytes", c.c_uint64),
        ("seed", c.c_uint64),
        ("name", c.c_char_p),
        ("python", c.c_char_p),
        ("worker_main", c.c_char_p),
        ("cwd", c.c_char_p),
        ("sys_path", c.POINTER(c.c_char_p)),
        ("preload", c.POINTER(c.c_char_p)),
        ("env", c.POINTER(c.c_char_p)),
    ]


class View(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("flags", c.c_uint32),
        ("dtype", c.c_int32),
        ("ndim", c.c_int32),
        ("data", c.c_void_p),
        ("nbytes", c.c_uint64),
        ("itemsize", c.c_uint64),
        ("version", c.c_uint64),
        ("segment", c.c_uint64),
        ("descr", c.c_char_p),
        ("shape", c.c_int64 * MAX_NDIM),
        ("strides", c.c_int64 * MAX_NDIM),
        ("offset", c.c_uint64),
    ]


class Update(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("op", c.c_int32),
        ("path", c.c_char_p),
        ("codec", c.c_int32),
        ("reserved", c.c_int32),
        ("buf", c.c_uint64),
        ("ptr", c.c_void_p),
        ("len", c.c_uint64),
    ]


class Value(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("codec", c.c_int32),
        ("blob", c.c_uint64),
        ("spans", c.POINTER(Span)),
        ("nspans", c.c_uint64),
        ("nbufs", c.c_uint64),
    ]


SMALL: Final = 1000


class Small(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("taken", c.c_int32),
        ("codec", c.c_int32),
        ("reserved", c.c_int32),
        ("len", c.c_uint64),
        ("data", c.c_ubyte * SMALL),
    ]


class Call(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("flags", c.c_uint32),
        ("target", c.c_char_p),
        ("function", c.c_uint64),
        ("in_codec", c.c_int32),
        ("out_codec", c.c_int32),
        ("in_", c.c_void_p),
        ("nin", c.c_uint64),
        ("bufs", c.c_void_p),
        ("nbufs", c.c_uint64),
        ("keys", c.c_void_p),
        ("nkeys", c.c_uint64),
        ("at", c.c_uint64),
        ("timeout_ms", c.c_int64),
        ("retries", c.c_int32),
        ("reserved", c.c_int32),
        ("rng_key", c.c_uint64),
        ("queue", c.c_uint64),
        ("tag", c.c_uint64),
    ]


class Event(c.Structure):
    _fields_ = [
        ("task", c.c_uint64),
        ("tag", c.c_uint64),
        ("status", c.c_int32),
        ("kind", c.c_int32),
    ]


S = TypeVar("S", bound=c.Structure)


def fresh(kind: type[S], **fields: Any) -> S:
    """A zeroed struct with its size filled in."""
    struct = kind(**fields)
    struct.struct_size = c.sizeof(kind)
    return struct


_u64, _i64, _u32, _i32 = c.c_uint64, c.c_int64, c.c_uint32, c.c_int32
_err = c.POINTER(Error)
_out = c.POINTER(c.c_uint64)

# name -> (result, arguments)
PROTOTYPES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "theus_abi_version": (_u32, ()),
    "theus_status_name": (c.c_char_p, (_i32,)),
    "theus_version": (c.c_char_p, ()),
    "theus_release": (_i32, (_u64,)),
    "theus_release_later": (_i32, (_u64,)),
    "theus_open": (_i32, (c.POINTER(Options), _out, _err)),
    "theus_drain": (_i32, (_u64, _i64, _err)),
    "theus_close": (_i32, (_u64, _i64, _err)),
    "theus_alloc": (_i32, (_u64, c.c_char_p, _i32, _i32, c.POINTER(_i64), _u32, _out, _err)),
    "theus_alloc_descr": (
        _i32,
        (_u64, c.c_char_p, c.c_char_p, _u64, _i32, c.POINTER(_i64), _u32, _out, _err),
    ),
    "theus_edit": (_i32, (_u64, c.c_char_p, _u32, _out, _err)),
    "theus_stream_open": (
        _i32,
        (_u64, c.c_char_p, c.c_char_p, _u64, _i32, c.POINTER(_i64), _u64, _u32, _out, _err),
    ),
    "theus_stream_next": (_i32, (_u64, _i64, _out, _err)),
    "theus_window_open": (
        _i32,
        (_u64, c.c_char_p, c.c_char_p, _u64, _i32, c.POINTER(_i64), _u64, _out, _err),
    ),
    "theus_window_append": (_i32, (_u64, c.c_void_p, _u64, _out, _err)),
    "theus_view_get": (_i32, (_u64, c.POINTER(View), _err)),
    "theus_snapshot": (_i32, (_u64, _out, _out, _err)),
    "theus_get": (_i32, (_u64, c.c_char_p, _out, _err)),
    "theus_get_json": (_i32, (_u64, c.c_char_p, _out, _err)),
    "theus_export": (_i32, (_u64, c.c_char_p, _out, _err)),
    "theus_heavy_keys": (_i32, (_u64, _out, _err)),
    "theus_cas": (_i32, (_u64, _u64, c.POINTER(Update), _u64, _u32, _out, _err)),
    "theus_define": (_i32, (_u64, c.c_char_p, c.POINTER(GivenSpan), _u64, _out, _err)),
    "theus_execute": (_i32, (_u64, c.POINTER(Call), _out, _err)),
    "theus_run": (_i32, (_u64, c.POINTER(Call), _out, c.POINTER(Small), _err)),
    "theus_wait": (_i32, (_u64, _i64, _err)),
    "theus_look": (_i32, (_u64, _err)),
    "theus_announce": (_i32, (_u64, _u64, _u64, _err)),
    "theus_result": (_i32, (_u64, c.POINTER(Value), _err)),
    "theus_take": (_i32, (_u64, c.POINTER(Small), _err)),
    "theus_result_buf": (_i32, (_u64, _u64, _out, _err)),
    "theus_cancel": (_i32, (_u64, _err)),
    "theus_queue_open": (_i32, (_u64, _u32, _out, _err)),
    "theus_queue_fd": (_i32, (_u64, c.POINTER(_i32), _err)),
    "theus_poll": (_i32, (_u64, c.POINTER(Event), _u64, _out, _err)),
    "theus_collect": (_i32, (_u64, c.POINTER(Event), c.POINTER(Small), _u64, _out, _err)),
    "theus_logs": (_i32, (_u64, _out, _err)),
    "theus_blob_data": (_i32, (_u64, c.POINTER(c.c_void_p), _out)),
    "theus_stats": (_i32, (_u64, _out, _err)),
    "theus_reap": (_i32, (_u64, _out, _err)),
}

# Calls that keep the GIL: giving it up costs 0.1 ms beside a thread that computes, and with many
# calls under way the threads of this package hand it to and fro (a call 68 µs instead of 55). They
# wait for nothing but locks that the library holds for some microseconds, in threads of its own
# that never need the GIL. Any other call that waited with it would freeze every thread.
PROMPT: Final = frozenset(
    {
        "theus_abi_version",
        "theus_collect",
        "theus_poll",
        "theus_release_later",
        "theus_status_name",
        "theus_take",
        "theus_version",
    }
)
