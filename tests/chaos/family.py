"""The processes of a host, and what each is doing, found out from outside by way of /proc."""

from __future__ import annotations

import enum
import mmap
import os
import re
import struct
import time
from pathlib import Path

import processes
from processes import children as children
from theus.worker import rings

# The one map of a worker that is shared, writable and of that size is of what it has in common with
# its host; arrays that tasks write to are larger (kinds.py). The status page is its last page.
_STATUS_PAGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-s 0+ \S+ (\d+) +/memfd:theus")
_SHARED = 2 * rings.SIZE + mmap.PAGESIZE
_POLL = "7"  # the system call's number on x86-64
_PPOLL = "73"  # on arm64, where poll is made of it


class WorkerPhase(enum.IntEnum):
    """What docs/internals.md says about the status page, and what comes before there is one."""

    STARTING = -1
    IDLE = 0
    STARTED = 1
    RUNNING = 2
    ENCODING = 3
    REPLYING = 4


class ZygotePhase(enum.Enum):
    """What a zygote does."""

    STARTING = "starting"  # until it has a first worker
    FORKING = "forking"  # or reaping: it is at work
    SERVING = "serving"  # waits for something to do


def zygotes(host: int) -> list[int]:
    """The zygote of a host; two while one takes the other's place."""
    return [pid for pid in children(host) if _is_zygote(pid)]


def _is_zygote(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.endswith(b"/theus/worker/zygote.py") for word in words)


def has_stopped(pid: int, patience: float = 60.0) -> bool:
    """Wait until a process that was sent SIGSTOP stands still; False: it is dead."""
    deadline = time.monotonic() + patience
    while True:
        letter = processes.state(pid)
        if letter in ("T", "t"):
            return True
        if letter in ("", "Z", "X"):
            return False
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not stop: its state is {letter!r}")


def has_ended(pid: int, patience: float = 60.0) -> None:
    """Wait until a process that was sent SIGKILL is dead."""
    deadline = time.monotonic() + patience
    while processes.alive(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not die: its state is {processes.state(pid)!r}")


class StatusPage:
    """The page in which a worker says what it does. It can be read after its death as well."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _SHARED, prot=mmap.PROT_READ)

    def word(self) -> tuple[WorkerPhase, int]:
        """The phase, and the library's number of the task."""
        (word,) = struct.unpack_from("<Q", self._map, _SHARED - mmap.PAGESIZE)
        return WorkerPhase(word >> 56), word & ((1 << 56) - 1)

    def close(self) -> None:
        self._map.close()


def status_page(host: int, worker: int) -> StatusPage | None:
    """A worker's status page, by the descriptor that the host has of it; None: it has none yet."""
    inode = _page_inode(worker)
    if inode is None:
        return None
    directory = f"/proc/{host}/fd"
    try:
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            try:
                if os.stat(path).st_ino == inode and os.readlink(path).startswith("/memfd:"):
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        return StatusPage(fd)
                    finally:
                        os.close(fd)
            except OSError:  # closed meanwhile
                continue
    except OSError:
        pass
    return None


def _page_inode(worker: int) -> int | None:
    try:
        lines = Path(f"/proc/{worker}/maps").read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        match = _STATUS_PAGE.match(line)
        if match and int(match[2], 16) - int(match[1], 16) == _SHARED:
            found.append(int(match[3]))
    assert len(found) < 2, f"worker {worker} has several maps like its status page: {lines}"
    return found[0] if found else None


def zygote_phase(pid: int, had_workers: bool) -> ZygotePhase:
    """What a stopped zygote was doing.

    Args:
        pid: its process id.
        had_workers: whether it has been seen with a worker.
    """
    if not had_workers and not children(pid):
        return ZygotePhase.STARTING
    try:
        call = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except OSError:
        call = ""
    return ZygotePhase.SERVING if call in (_POLL, _PPOLL) else ZygotePhase.FORKING
