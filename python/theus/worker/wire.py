"""The fields inside frames: integers, texts, values and array descriptors (docs/internals.md)."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from .frames import ProtocolError

CODEC_NONE = 0
CODEC_RAW = 1
CODEC_JSON = 2
CODEC_PICKLE = 3

ARRAY_LIVE = 1
ARRAY_WRITABLE = 2
ARRAY_OF_KEY = 4  # its key means this array in the version that the task reads

TASK_POLL = 1  # a processor is left to poll on for what comes after it
TASK_AGAIN = 2  # it had begun before, in a worker that has died

INLINE = 0
IN_SEGMENT = 1

SPAN_ALIGN = 64

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TASK_HEAD = struct.Struct("<QQQBBH")
# The same, an empty target, and the head of an input of one span: see plain_task.
_PLAIN_TASK = struct.Struct("<QQQBBHIBBHI")
_INLINE_SPAN = struct.Struct("<BBHI")  # a value of one span, and that one's length
_VALUE = struct.Struct("<BBH")
_SPAN = struct.Struct("<QQ")
_ARRAY = struct.Struct("<QQQQQIBBBB")


class Reader:
    """Takes fields off a payload, in order.

    Its methods raise ProtocolError when the payload ends first.
    """

    __slots__ = ("_at", "_view")

    def __init__(self, payload: bytearray, at: int = 0) -> None:
        self._view = memoryview(payload)
        self._at = at

    def take(self, count: int) -> memoryview:
        """The next bytes, as a writable view of the payload."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._view):
            raise ProtocolError("a frame ends before its fields do")
        return self._view[start : self._at]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next fields, of a fixed layout."""
        start, self._at = self._at, self._at + layout.size
        if self._at > len(self._view):
            raise ProtocolError("a frame ends before its fields do")
        return layout.unpack_from(self._view, start)

    @property
    def at(self) -> int:
        """Where the next field begins."""
        return self._at

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int(self.unpack(_U16)[0])

    def u32(self) -> int:
        return int(self.unpack(_U32)[0])

    def u64(self) -> int:
        return int(self.unpack(_U64)[0])

    def text(self) -> str:
        length = self.u32()
        return str(self.take(length), "utf-8", "replace") if length else ""

    def task(self) -> tuple[int, int, int, int, int, int, str, WireValue]:
        """What a TASK begins with: (function, version, rng_key, out_codec, flags, number of array
        descriptors, target, input)."""
        return *self.unpack(_TASK_HEAD), self.text(), self.value()

    def value(self) -> WireValue:
        codec, where, count = self.unpack(_VALUE)
        if where == INLINE:
            if count == 1:
                return WireValue(codec, [self.take(self.u32())], 0, 0, [])
            lengths = [self.u32() for _ in range(count)]
            return WireValue(codec, [self.take(length) for length in lengths], 0, 0, [])
        if where != IN_SEGMENT:
            raise ProtocolError(f"a value is at an unknown place {where}")
        segment, size = self.u64(), self.u64()
        ranges = [self.unpack(_SPAN) for _ in range(count)]
        if any(offset + length > size for offset, length in ranges):
            raise ProtocolError(f"a value reaches over the end of segment {segment}")
        return WireValue(codec, [], segment, size, ranges)

    def array(self) -> tuple[WireArray, bool]:
        """An array, and whether a descriptor of its segment came with it."""
        fields = self.unpack(_ARRAY)
        segment, size, offset, _nbytes, version, _itemsize, has_fd, flags, ndim, _ = fields
        descr, key = self.text(), self.text()
        layout = struct.unpack(f"<{2 * ndim}q", self.take(16 * ndim))
        array = WireArray(
            segment=segment,
            size=size,
            offset=offset,
            version=version,
            flags=flags,
            descr=descr,
            key=key,
            shape=layout[:ndim],
            strides=layout[ndim:],
        )
        return array, bool(has_fd)


def plain_task(
    payload: bytearray,
) -> tuple[int, int, int, int, int, int, int, memoryview, int] | None:
    """Of a TASK without a target, whose input is one span: (function, version, rng_key, out_codec,
    flags, number of array descriptors, codec of the input, span, where the descriptors begin).
    None: it is not that plain."""
    if len(payload) < _PLAIN_TASK.size:
        return None
    *head, target, codec, where, spans, length = _PLAIN_TASK.unpack_from(payload)
    end = _PLAIN_TASK.size + length
    if target or where != INLINE or spans != 1 or end > len(payload):
        return None
    return *head, codec, memoryview(payload)[_PLAIN_TASK.size : end], end


class WireValue(NamedTuple):
    """A value in a frame: inline spans, or ranges of a segment.

    Attributes:
        codec: one of CODEC_*.
        spans: the bytes, when it is inline.
        segment: 0 when it is inline.
        size: of the segment.
        ranges: (offset, length) of each span in the segment.
    """

    codec: int
    spans: list[memoryview]
    segment: int
    size: int
    ranges: list[tuple[int, int]]


class WireArray(NamedTuple):
    """An array in a frame: where it lies and how its bytes are to be read."""

    segment: int
    size: int
    offset: int
    version: int
    flags: int
    descr: str
    key: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def u16(number: int) -> bytes:
    return _U16.pack(number)


def u32(number: int) -> bytes:
    return _U32.pack(number)


def u64(number: int) -> bytes:
    return _U64.pack(number)


def text(string: str) -> bytes:
    # A lone surrogate (from a file name, say) must not make an error unreportable.
    encoded = string.encode("utf-8", "backslashreplace")
    return _U32.pack(len(encoded)) + encoded


def inline_span(codec: int, span: bytes) -> bytes:
    """What `inline_value` gives for a single span."""
    return _INLINE_SPAN.pack(codec, INLINE, 1, len(span)) + span


def inline_value(codec: int, spans: list[memoryview]) -> bytes:
    lengths = b"".join(_U32.pack(span.nbytes) for span in spans)
    return b"".join((_VALUE.pack(codec, INLINE, len(spans)), lengths, *spans))


def inline_size(spans: list[memoryview]) -> int:
    """How many bytes `inline_value` gives."""
    return _VALUE.size + sum(4 + span.nbytes for span in spans)


def segment_value(codec: int, segment: int, size: int, ranges: list[tuple[int, int]]) -> bytes:
    head = _VALUE.pack(codec, IN_SEGMENT, len(ranges)) + _SPAN.pack(segment, size)
    return head + b"".join(_SPAN.pack(*span) for span in ranges)


def no_value() -> bytes:
    return _VALUE.pack(CODEC_NONE, INLINE, 0)


def array(described: WireArray, nbytes: int, itemsize: int) -> bytes:
    """An array descriptor that carries no file descriptor."""
    fixed = _ARRAY.pack(
        described.segment,
        described.size,
        described.offset,
        nbytes,
        described.version,
        itemsize,
        0,
        described.flags,
        len(described.shape),
        0,
    )
    layout = (*described.shape, *described.strides)
    numbers = struct.pack(f"<{len(layout)}q", *layout)
    return fixed + text(described.descr) + text(described.key) + numbers
