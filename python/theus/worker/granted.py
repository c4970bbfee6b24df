"""Segments that the host grants to a task, to be filled with its result."""

from __future__ import annotations

import os
from typing import NamedTuple

from .. import arrays
from ..arrays import ShmArray
from ..errors import TheusError
from ..mapping import Mapping
from .link import NO_DESCRIPTORS, Link
from .refusals import raise_refusal
from .segments import Segments
from .wire import Reader, WireArray

_GRANTED = 0


class Granted(NamedTuple):
    """A segment to write to.

    Attributes:
        segment: its number.
        size: in bytes, at least what was asked for.
        used: whether it holds what another task has written; else it is zeroed.
        fd: its descriptor, the receiver's to close.
    """

    segment: int
    size: int
    used: bool
    fd: int


def ask(link: Link, task: int, nbytes: int, label: str) -> Granted:
    """Ask the host for a segment.

    Raises:
        HeapFull: there is no room, even after what was garbage here was given back.
    """
    return link.with_room(lambda: _ask(link, task, nbytes, label))


def _ask(link: Link, task: int, nbytes: int, label: str) -> Granted:
    with link.allocate(task, nbytes, label) as answer:
        fields = Reader(answer.payload)
        if fields.u8() != _GRANTED:
            raise_refusal(fields.text())
        segment, size, used = fields.u64(), fields.u64(), bool(fields.u8())
        fd = answer.take_fd()
    if fd is None:
        raise TheusError(f"{nbytes} bytes for {label!r} were granted, but {NO_DESCRIPTORS}")
    return Granted(segment, size, used, fd)


class Output:
    """An array that this task allocated."""

    __slots__ = ("_reader", "array", "described", "mapping")

    array: ShmArray
    mapping: Mapping
    described: WireArray

    def __init__(self, segments: Segments, granted: Granted) -> None:
        try:
            # A second description, opened for reading only: `hand_over` maps it, and a map of
            # the granted one would count as a writer for ever.
            self._reader = os.open(f"/proc/self/fd/{granted.fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.mapping = segments.map_output(granted.segment, granted.size, granted.fd)
            except OSError:
                os.close(self._reader)
                raise
        finally:
            os.close(granted.fd)

    def hand_over(self) -> None:
        """Give the bytes to the host: nothing that is written here from now on reaches others."""
        arrays.freeze(self.array)
        self.mapping.make_private(self._reader)

    def close(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
        memory = arrays.memory_of(self.array)
        if memory is not None:
            # Later tasks cannot refer to a segment that was granted to this one.
            memory.origin.kind = "private"
