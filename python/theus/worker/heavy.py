"""ctx.heavy in a worker: arrays of the task's version, in place, and new ones for its result."""

from __future__ import annotations

import ctypes
import json
import math
import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arrays
from ..arrays import Origin, ShmArray, bytes_over, over_memory
from ..context import HeavyView
from ..dtypes import descr_of, dtype_of
from ..errors import TheusError
from ..mapping import PAGE_SIZE, Mapping
from ..references import holds, offset_of, reach
from . import wire
from .granted import Output, ask
from .link import HEAVY, KEYS, Link
from .received import take_array
from .signals import uninterrupted
from .wire import Reader, WireArray

_LONGEST_KEY = 4096  # bytes; the host has no longer ones

_HERE = 0
_ABSENT = 1
_UNPUBLISHED = 2


class TaskHeavy(HeavyView):
    """What one task reads and allocates. It also resolves the references in the task's input.

    Args:
        link: the worker's connection.
        task: the task's number.
        sent: arrays that came with it.
    """

    __slots__ = (
        "_absent",
        "_described",
        "_found",
        "_keys",
        "_link",
        "_noted",
        "_sent",
        "_task",
        "outputs",
    )

    def __init__(self, link: Link, task: int, sent: Sequence[WireArray]) -> None:
        self._link = link
        self._task = task
        self._sent = sent
        # Not all that came: an argument may be an older version of its key.
        self._described = {a.key: a for a in sent if a.flags & wire.ARRAY_OF_KEY}
        self._found: dict[str, ShmArray] = {}
        # The version does not change, so what is not there stays so: the keys that there are, of
        # more than fifty the most alike, or None for one that is allocated but not published.
        self._absent: dict[str, list[str] | None] = {}
        self._keys: list[str] | None = None
        self._noted: dict[int, list[WireArray]] | None = None
        self.outputs: dict[int, Output] = {}

    @property
    def keys_read(self) -> list[str]:
        """The keys that user code has looked at, for messages."""
        return list(self._found)

    # ---- reading

    def _find(self, key: str) -> ShmArray | None:
        found = self._found.get(key)
        if found is not None:
            return found
        described = self._described.get(key)
        found = None if described is None else self._link.segments.view_of(described)
        if found is None:
            return self._look_up(key)
        self._found[key] = found
        return found

    @uninterrupted
    def _look_up(self, key: str) -> ShmArray | None:
        if key in self._absent:
            return None
        described = self._described.get(key) or self._ask(key)
        if described is None:
            return None
        found = self._found[key] = self._view(described)
        return found

    def _ask(self, key: str) -> WireArray | None:
        if not _can_be_key(key):
            self._absent[key] = []
            return None
        with self._link.fetch(self._task, HEAVY, key) as answer:
            fields = Reader(answer.payload)
            status = fields.u8()
            if status == _HERE:
                described = take_array(fields, answer, self._link.segments)
                self._described[key] = described
                self._note(described)
                return described
            if status in (_ABSENT, _UNPUBLISHED):
                names = json.loads(fields.text() or "[]") if status == _ABSENT else None
                self._absent[key] = names
                return None
            raise TheusError(f"heavy[{key!r}] cannot be read: {fields.text()}")

    def _is_unpublished(self, key: str) -> bool:
        return self._absent.get(key, []) is None

    def _alike(self, key: str) -> Sequence[str]:
        return self._absent.get(key) or ()

    def keys(self) -> Sequence[str]:
        """The keys of this version."""
        if self._keys is None:
            names = self._link.fetch_bytes(self._task, KEYS, "", "the keys of ctx.heavy")
            self._keys = list(json.loads(names))
        return self._keys

    def _view(self, described: WireArray) -> ShmArray:
        segments = self._link.segments
        found = segments.view_of(described)
        if found is not None:
            return found
        made = self._over_map(described)  # takes 5 µs
        if made.flags.writeable:
            return made
        segments.keep_view(described, made)
        return made.view()

    def _over_map(self, described: WireArray) -> ShmArray:
        mapping = self._mapping(described.segment, described.key)
        live = bool(described.flags & wire.ARRAY_LIVE)
        dtype = dtype_of(described.descr)
        _require_inside(described.offset, dtype, described.shape, described.strides, mapping)
        origin = Origin(
            key=described.key or None,
            segment=described.segment,
            version=described.version,
            address=mapping.address,
            nbytes=math.prod(described.shape) * dtype.itemsize,
            kind="live" if live else "published",
        )
        return _array_over(mapping, described, dtype, origin, writable=live and mapping.writable)

    def output_rows(self) -> np.ndarray[Any, Any] | None:
        """The output of the map that this task is of, whole and writable; None: it has none."""
        for described in self._sent:
            if described.flags & (wire.ARRAY_WRITABLE | wire.ARRAY_LIVE) == wire.ARRAY_WRITABLE:
                return self._rows_of(described)
        return None

    def _rows_of(self, described: WireArray) -> np.ndarray[Any, Any]:
        name = f"the output {described.key!r} of a map"
        mapping = self._link.fetch_written(self._task, described.segment, name)
        dtype = dtype_of(described.descr)
        _require_inside(described.offset, dtype, described.shape, described.strides, mapping)
        origin = Origin(key=described.key, address=mapping.address, kind="private")
        return np.asarray(_array_over(mapping, described, dtype, origin, writable=True))

    def _mapping(self, segment: int, key: str) -> Mapping:
        found = self._link.segments.find(segment)
        return found or self._link.fetch_shared(self._task, segment, f"heavy[{key!r}]")

    def resolve(
        self,
        segment: int,
        offset: int,
        descr: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        key: str | None,
        version: int,
    ) -> ShmArray:
        """The array that a pickled reference means; see `theus.references.Resolver`."""
        meant = (segment, offset, key or "", descr, shape, strides)
        for a in self._sent:
            if meant == (a.segment, a.offset, a.key, a.descr, a.shape, a.strides):
                return self._view(a._replace(version=version))  # that one, and no part of it
        mapping = self._mapping(segment, key or "")
        place = reach(offset, dtype_of(descr).itemsize, shape, strides)
        sent = self._cover(segment, place, mapping.size, key)
        return self._view(
            sent._replace(
                offset=offset,
                version=version,
                descr=descr,
                key=key or "",
                shape=shape,
                strides=strides,
            )
        )

    @property
    def _given(self) -> dict[int, list[WireArray]]:
        """By segment, what the task was given. It stays alive in the host until the result is
        there, so the result may refer to it."""
        if self._noted is None:  # most results refer to nothing
            self._noted = {}
            for described in self._sent:
                self._note(described)
        return self._noted

    def _note(self, described: WireArray) -> None:
        self._given.setdefault(described.segment, []).append(described)

    def _cover(self, segment: int, place: tuple[int, int], size: int, key: str | None) -> WireArray:
        """The array that the task was given and that these bytes of a segment belong to."""
        for described in self._given.get(segment, ()):
            if _covers(described, place):
                return described
        # Described as what is certain: so many bytes.
        whole = WireArray(segment, size, 0, 0, 0, "|u1", key or "", (size,), (1,))
        self._note(whole)
        return whole

    # ---- writing

    @uninterrupted
    def cow(self, key: str) -> np.ndarray[Any, Any]:
        """A private, writable view of an array; see `HeavyView.cow`."""
        read = self[key]
        described = self._described[key]
        if described.size - PAGE_SIZE >= read.nbytes:
            # It shares its segment with others: a map of them all for this one would be waste.
            return np.array(read, subok=False, order="K")
        mapping = self._link.with_room(
            lambda: self._link.fetch_copy(self._task, described.segment, f"heavy[{key!r}]")
        )
        origin = Origin(key=key, address=mapping.address, nbytes=read.nbytes, kind="private")
        return np.asarray(_array_over(mapping, described, read.dtype, origin, writable=True))

    @uninterrupted
    def alloc(self, key: str, shape: Any, dtype: Any = "float64") -> ShmArray:
        """A zeroed array for the result, in shared memory; see `HeavyView.alloc`."""
        if not isinstance(key, str) or not key:
            raise TypeError(f"the key of a heavy array is a string that is not empty, not {key!r}")
        if not _can_be_key(key):
            raise ValueError(
                f"the heavy key {key[:40]!r}… has {len(key):,} letters, more than {_LONGEST_KEY}"
            )
        dtype = np.dtype(dtype)
        lengths = _lengths(shape) + dtype.shape
        dtype = dtype.base
        descr = descr_of(dtype)
        nbytes = math.prod(lengths) * dtype.itemsize
        if nbytes >= 1 << 62:
            raise ValueError(f"shape {lengths} of {dtype} is larger than any address space")
        granted = ask(self._link, self._task, nbytes, key)
        output = Output(self._link.segments, granted)
        if granted.used:
            ctypes.memset(output.mapping.address, 0, nbytes)
        segment = granted.segment
        origin = Origin(
            key=key,
            segment=segment,
            address=output.mapping.address,
            nbytes=nbytes,
            kind="output",
        )
        array = over_memory(
            output.mapping.address,
            dtype,
            lengths,
            None,
            writable=True,
            origin=origin,
            keep=output.mapping,
        )
        output.array = array
        output.described = WireArray(
            segment, granted.size, 0, 0, 0, descr, key, lengths, tuple(array.strides)
        )
        self.outputs[segment] = output
        return array

    @uninterrupted
    def write(
        self, spans: Sequence[tuple[int, memoryview]], size: int, label: str
    ) -> tuple[int, int]:
        """Write spans, each at its offset, to a new segment that the host adopts.

        Returns:
            The segment's number and size. Nothing of it stays mapped here.
        """
        granted = ask(self._link, self._task, size, label)
        try:
            mapping = self._link.segments.map_output(granted.segment, granted.size, granted.fd)
        finally:
            os.close(granted.fd)
        target = bytes_over(mapping.address, mapping.size, writable=True, keep=None)
        for offset, span in spans:
            target[offset : offset + span.nbytes] = span
        # Before the host asks the kernel whether anyone still writes.
        mapping.close()
        return granted.segment, granted.size

    # ---- the end

    def may_refer(self, origin: Origin) -> bool:
        """Whether the result may refer to this memory: the host holds it until it has the result.

        Arrays that outlived the task that read them (in a global, say) are sent by value: the
        host may have let go of them.
        """
        if origin.kind == "output":
            return origin.segment in self.outputs
        return origin.kind in ("published", "live") and origin.segment in self._given

    def mention(self, array: ShmArray, mentioned: list[WireArray]) -> int:
        """The number, among those that a result mentions, of the array that this is a view of.

        Args:
            array: one that `may_refer`.
            mentioned: what the result has mentioned so far; a new one is added.
        """
        memory = arrays.memory_of(array)
        assert memory is not None
        segment = memory.origin.segment
        place = reach(offset_of(array), array.itemsize, array.shape, array.strides)
        # The host goes by the same rule, so that its numbers are these.
        for number, described in enumerate(mentioned):
            if described.segment == segment and _covers(described, place):
                return number
        output = self.outputs.get(segment)
        if output is not None:
            mentioned.append(output.described)
        else:
            size = self._given[segment][0].size
            mentioned.append(self._cover(segment, place, size, memory.origin.key))
        return len(mentioned) - 1

    def hand_over(self, referred: Sequence[ShmArray]) -> list[bytes]:
        """Descriptors of the arrays that a result refers to, in the order of first mention."""
        mentioned: list[WireArray] = []
        for array in referred:
            self.mention(array, mentioned)
        for described in mentioned:
            output = self.outputs.get(described.segment)
            if output is not None:
                output.hand_over()
        return [_descriptor(described) for described in mentioned]

    def close(self) -> None:
        """The task is over: what it allocated and did not return is its own business now."""
        for output in self.outputs.values():
            output.close()


def _descriptor(described: WireArray) -> bytes:
    return wire.array(described, _nbytes(described), dtype_of(described.descr).itemsize)


def _nbytes(described: WireArray) -> int:
    return math.prod(described.shape) * dtype_of(described.descr).itemsize


def _covers(described: WireArray, place: tuple[int, int]) -> bool:
    return holds(described.offset, _nbytes(described), *place)


def _can_be_key(key: str) -> bool:
    return len(key) <= _LONGEST_KEY and len(key.encode("utf-8", "replace")) <= _LONGEST_KEY


def _lengths(shape: Any) -> tuple[int, ...]:
    try:
        lengths: tuple[int, ...] = (operator.index(shape),)
    except TypeError:
        lengths = tuple(operator.index(length) for length in shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape {lengths}: lengths cannot be negative")
    return lengths


def _array_over(
    mapping: Mapping, described: WireArray, dtype: np.dtype[Any], origin: Origin, *, writable: bool
) -> ShmArray:
    """A described array in a map of its segment."""
    return over_memory(
        mapping.address + described.offset,
        dtype,
        described.shape,
        described.strides,
        writable=writable,
        origin=origin,
        keep=mapping,
    )


def _require_inside(
    offset: int,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    strides: Sequence[int],
    mapping: Mapping,
) -> None:
    """Refuse an array that would reach over its segment: reading there is a crash."""
    low, high = reach(offset, dtype.itemsize, shape, strides)
    if low < 0 or high > mapping.size:
        raise TheusError(
            f"an array of shape {tuple(shape)} reaches over segment {mapping.segment} of "
            f"{mapping.size} bytes: a bug in theus"
        )
