"""Which processes this test run has started, whoever their parent is now.

Two marks tell: a variable for the programs that it starts, and a map for the children that it
forks. /proc shows the environment that a program was started with, so that what Python sets in its
own, below, is not there; a map is inherited by a fork, and gone when a program is started.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import uuid

from proc_files import contents, listed, text

MARK = "RUN_OF_THEUS_TESTS"
os.environ[MARK] = uuid.uuid4().hex

_started_with = contents("/proc/self/environ")
# Anonymous, but shared: the kernel gives it an inode, which no other map on the machine has.
_page = mmap.mmap(-1, mmap.PAGESIZE)


def _line_of_page() -> str:
    """The page's line in the maps of this process; in those of its forks it is the same."""
    start = f"{ctypes.addressof(ctypes.c_char.from_buffer(_page)):x}-"
    (line,) = (line for line in text("/proc/self/maps").splitlines() if line.startswith(start))
    return line


_inherited = _line_of_page()


def started_this(pid: str) -> bool:
    """Whether the run started this process; not for one that is dead, or of another user."""
    environment = contents(f"/proc/{pid}/environ")
    if f"{MARK}={os.environ[MARK]}".encode() in environment.split(b"\0"):
        return True
    # Maps are long, so they are read only where they can decide.
    return environment == _started_with != b"" and _inherited in text(f"/proc/{pid}/maps")


def started() -> frozenset[int]:
    """All of them that are alive, without this process itself."""
    pids = (pid for pid in listed("/proc") if pid.isdigit() and int(pid) != os.getpid())
    return frozenset(int(pid) for pid in pids if started_this(pid))
