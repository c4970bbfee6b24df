"""The page that tells the host which task this worker runs, also after a SIGKILL."""

from __future__ import annotations

import ctypes
import os

from ..mapping import PAGE_SIZE, map_shared

IDLE = 0
STARTED = 1
RUNNING = 2
ENCODING = 3
REPLYING = 4
CUT_OFF = 5  # the socket was closed by something in this process

_TASK = (1 << 56) - 1


class StatusPage:
    """One word, ``phase << 56 | task``, written by this process alone."""

    def __init__(self, fd: int) -> None:
        self._map = map_shared(fd, PAGE_SIZE, writable=True)
        os.close(fd)
        self._word = ctypes.c_uint64.from_address(self._map.address)

    def set(self, phase: int, task: int) -> None:
        """Say what is going on. An aligned 8-byte store, so the host never sees half of it."""
        self._word.value = phase << 56 | task

    def cut_off(self) -> None:
        """Say that this process ends because it has lost its socket, whatever it did."""
        self._word.value = CUT_OFF << 56 | (self._word.value & _TASK)

    def abandon(self) -> None:
        """In a child that was forked by user code: write to memory of one's own from now on."""
        self._word = ctypes.c_uint64(0)
