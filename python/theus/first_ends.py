"""Waiting for whichever of several tasks ends first."""

from __future__ import annotations

import select
from collections.abc import Sequence

from . import _abi as abi
from ._core import Handle, core
from .waiting import SLICE_MS

__all__ = ["FirstEnds"]

_BATCH = 16


class FirstEnds:
    """The ends of some tasks of one engine, in the order in which they come."""

    def __init__(self, engine: int) -> None:
        handle, fd = core().queue_open(engine, logs=False)
        self._handle = Handle(handle)
        self._events = (abi.Event * _BATCH)()
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)
        self._announced: set[int] = set()
        self._ended: set[int] = set()

    def wait(self, tasks: Sequence[int]) -> int:
        """Wait, in slices so that Ctrl-C gets through, until one of the tasks has ended.

        Returns:
            Its place among them. It is not to be waited for again.
        """
        for task in tasks:
            if task not in self._announced:
                core().announce(task, self._handle.value, 0)
                self._announced.add(task)
        while True:
            for place, task in enumerate(tasks):
                if task in self._ended:
                    self._ended.discard(task)
                    self._announced.discard(task)
                    return place
            self._poller.poll(SLICE_MS)
            taken = core().poll(self._handle.value, self._events)
            self._ended.update(event.task for event in self._events[:taken])
