"""The memory that this worker and its host have in common.

In front are the rings. Behind them is the status page, which tells the host which task this worker
runs, also after a SIGKILL; and last, room for what `faulthandler` writes when native code ends the
process.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import os
import resource

from ..mapping import map_shared
from . import rings
from .rings import Rings

# Phases, where the word has them.
_SHIFT = 56
IDLE = 0 << _SHIFT
STARTED = 1 << _SHIFT
RUNNING = 2 << _SHIFT
ENCODING = 3 << _SHIFT
REPLYING = 4 << _SHIFT
CUT_OFF = 5 << _SHIFT  # the socket was closed by something in this process

_TASK = (1 << _SHIFT) - 1
_WORD = 2 * rings.SIZE  # offset of the status page
_FAULT = _WORD + 64  # offset of the report, which may take the rest of it
_ALL = _WORD + 4096


class StatusPage:
    """One word, ``phase << 56 | task``, written by this process alone.

    Attributes:
        word: that one; its `value` is set.
    """

    def __init__(self, fd: int) -> None:
        self._map = map_shared(fd, _ALL, writable=True)
        self._fd = _move_up(fd)
        self._identity = _identity(self._fd)
        # An aligned 8-byte store, so the host never sees half of it.
        self.word = ctypes.c_uint64.from_address(self._map.address + _WORD)

    def rings(self) -> Rings:
        """Those of this worker."""
        return Rings(self._map.address + rings.SIZE, self._map.address)

    def cut_off(self) -> None:
        """Say that this process ends because it has lost its socket, whatever it did."""
        self.word.value = CUT_OFF | (self.word.value & _TASK)

    def report_faults(self) -> None:
        """Have it written here where Python was, should native code end this process."""
        if faulthandler.is_enabled():
            return  # a preloaded module wants it elsewhere
        # It is written by a signal handler, so through a descriptor and not through the map.
        os.lseek(self._fd, _FAULT, os.SEEK_SET)
        faulthandler.enable(self._fd, all_threads=False)

    def abandon(self) -> None:
        """In a child that was forked by user code: write to memory of one's own from now on."""
        self.word = ctypes.c_uint64(0)
        # The fork may have come while this thread was about to say that it looks at its ring.
        with contextlib.suppress(OSError):
            self._map.forget()
        # Its faults are not ours either. User code may have closed the descriptor, and the number
        # may mean a file of its own by now.
        with contextlib.suppress(OSError):
            if _identity(self._fd) == self._identity:
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, self._fd, inheritable=False)
                os.close(nowhere)


def _move_up(fd: int) -> int:
    """Give a descriptor a high number, so that it is not soon another file's where user code closes
    all that it finds: a fault would be reported into that."""
    lowest = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024) - 16
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(lowest, 0))
    except OSError:
        return fd
    os.close(fd)
    return moved


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
