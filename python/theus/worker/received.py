"""What a worker receives, as it came: values, tasks and arrays, mapped but not decoded.

Decoding may run code of the user's, and may fail; it is done when a task is at work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..arrays import bytes_over
from ..mapping import Mapping
from . import wire
from .frames import Frame
from .segments import Segments
from .wire import Reader, WireArray, WireValue

if TYPE_CHECKING:
    from .link import Link


class Received:
    """A value that came in a frame. What it needs of a segment is mapped when it comes.

    Attributes:
        codec: one of wire.CODEC_*.
        missing: number of its segment when that could not be mapped (its descriptor was lost, or
            there was no room for a map); else 0.
    """

    __slots__ = ("_ranges", "_spans", "codec", "missing")

    def __init__(
        self,
        codec: int,
        spans: list[memoryview],
        segment: int = 0,
        ranges: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.codec = codec
        self.missing = segment
        self._spans = spans
        self._ranges = ranges

    @classmethod
    def of(cls, value: WireValue, frame: Frame, segments: Segments) -> Received:
        """A value, and of the frame that it came in the descriptor of its segment."""
        received = cls(value.codec, value.spans, value.segment, value.ranges)
        fd = frame.take_fd() if value.segment else None
        if fd is not None:
            with contextlib.suppress(OSError):  # whoever uses it asks for it again
                received.place(segments.map_private(value.segment, value.size, fd))
        return received

    def place(self, mapping: Mapping) -> None:
        """Its segment is mapped here; privately, so that arrays over it can be written to."""
        self._spans = [
            bytes_over(mapping.address + offset, length, writable=True, keep=mapping)
            for offset, length in self._ranges
        ]
        self.missing = 0

    def take(self, link: Link, task: int) -> list[memoryview]:
        """Its spans, once: after that only what was decoded from them keeps them alive.

        Args:
            link: where a missing segment is asked for.
            task: the task that asks.

        Raises:
            TheusError: its segment cannot be had.
        """
        if self.missing:
            self.place(link.fetch_private(task, self.missing, "the task's own data"))
        spans, self._spans = self._spans, []
        return spans


class QueuedTask:
    """A task as it came, nothing of it decoded that could fail."""

    __slots__ = (
        "again",
        "arrays",
        "function",
        "id",
        "input",
        "out_codec",
        "poll",
        "rng_key",
        "target",
        "version",
    )

    def __init__(self, frame: Frame, segments: Segments) -> None:
        self.id = frame.id
        self.target = ""
        self.arrays: list[WireArray] = []
        plain = wire.plain_task(frame.payload)
        if plain is not None:
            *head, flags, count, codec, span, at = plain
            self.input = Received(codec, [span])
        else:
            fields = Reader(frame.payload)
            *head, flags, count, self.target, value = fields.task()
            self.input = Received.of(value, frame, segments)
            at = fields.at
        self.function, self.version, self.rng_key, self.out_codec = head
        if count:
            self.arrays = take_arrays(frame, at, count, segments)
        self.poll = bool(flags & wire.TASK_POLL)
        self.again = bool(flags & wire.TASK_AGAIN)


def take_arrays(frame: Frame, at: int, count: int, segments: Segments) -> list[WireArray]:
    """The array descriptors at the end of a frame, as `take_array`.

    Task after task comes with the same arrays: what the same bytes mean is not found out again.
    """
    described = None if frame.fds else bytes(memoryview(frame.payload)[at:])
    found = None if described is None else segments.described.get(described)
    if found is None:
        found = []
        fields = Reader(frame.payload, at)
        for _ in range(count):
            found.append(take_array(fields, frame, segments))
        if described is not None:
            segments.describe(described, found)
    return found


def take_array(fields: Reader, frame: Frame, segments: Segments) -> WireArray:
    """An array descriptor; its segment is mapped now if a descriptor came with it."""
    array, has_fd = fields.array()
    fd = frame.take_fd() if has_fd else None
    if fd is not None:
        writable = bool(array.flags & wire.ARRAY_WRITABLE)
        try:  # noqa: SIM105  # contextlib.suppress takes 2 µs
            segments.map_shared(array.segment, array.size, fd, writable=writable)
        except OSError:
            pass  # whoever uses it asks for it again
    return array
