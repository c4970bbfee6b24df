"""Ends of tasks as a queue of the library gives them: many in one call, with small results."""

from __future__ import annotations

import ctypes as c
import struct
from collections.abc import Iterator
from typing import NamedTuple

from . import _abi as abi
from ._core import SmallResult, core

__all__ = ["Collector", "End"]

_BATCH = 64

_EVENT = struct.Struct("@QQii")
# The fields of a theus_small before its data; a struct of ctypes takes longer to look into.
_SMALL = struct.Struct("@IiiiQ")
assert (_EVENT.size, _SMALL.size) == (c.sizeof(abi.Event), abi.Small.data.offset)


class End(NamedTuple):
    """An event of a queue.

    Attributes:
        task: the handle of the task that has ended; 0 for log records.
        tag: the caller's.
        is_log: log records wait.
        small: its result, if that is small: the handle is released then.
    """

    task: int
    tag: int
    is_log: bool
    small: SmallResult | None


class Collector:
    """Takes events out of one queue. Used by one thread."""

    def __init__(self, queue: int) -> None:
        self._queue = queue
        self._events = (abi.Event * _BATCH)()
        self._results = (abi.Small * _BATCH)()
        self._results[0].struct_size = c.sizeof(abi.Small)
        self._event_bytes = memoryview(self._events).cast("B")
        self._result_bytes = memoryview(self._results).cast("B")

    def ends(self) -> Iterator[End]:
        """All that are there."""
        taken = _BATCH
        while taken == _BATCH:
            taken = core().collect(self._queue, self._events, self._results)
            # All of them now: who gets one may run anything, also what collects from this queue.
            yield from [self._end(number) for number in range(taken)]

    def _end(self, number: int) -> End:
        task, tag, _status, kind = _EVENT.unpack_from(self._event_bytes, number * _EVENT.size)
        at = number * c.sizeof(abi.Small)
        _, taken, codec, _, length = _SMALL.unpack_from(self._result_bytes, at)
        small = None
        if taken:
            data = at + _SMALL.size
            small = codec, bytes(self._result_bytes[data : data + length])
        return End(task, tag, kind == abi.EVENT_LOG, small)
