"""``python -m theus reap``: programs with workers of theus, and workers without a program.

Shared memory has no name here: it goes with the last process that maps it, so there is nothing to
sweep. Workers carry a signal that ends them with their program. Should one outlive it all the same
(a sandbox may forbid that signal), it is found here, and ended when that is asked for.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from typing import NamedTuple

# What a zygote was started with; workers are forks of it.
_PROGRAM = b"/theus/worker/zygote.py"
_LIBRARY = "/libtheus"
_STATES = {"T": ", stopped", "t": ", held by a debugger"}
_PATIENCE_MS = 5000


class Process(NamedTuple):
    """A process as /proc tells of it."""

    pid: int
    parent: int
    state: str
    started: str
    command: str
    resident: int


class Program(NamedTuple):
    """A program that has an engine, with the zygotes and workers of it."""

    host: Process
    processes: list[Process]


class Found(NamedTuple):
    """What there is on this machine, as far as this user may see it."""

    programs: list[Program]
    orphans: list[Process]


def find() -> Found:
    """Look at every process of this machine."""
    ours = {process.pid: process for process in _all() if _is_worker(process.pid)}
    programs: dict[int, Program] = {}
    orphans: list[Process] = []
    for process in ours.values():
        top = process
        while top.parent in ours:
            top = ours[top.parent]
        host = _read(top.parent)
        if host is None or _has_library(host.pid) is False:
            orphans.append(process)
        else:
            programs.setdefault(host.pid, Program(host, [])).processes.append(process)
    return Found(sorted(programs.values()), sorted(orphans))


def end(orphan: Process) -> bool:
    """End an orphan, and wait until it is gone; whether it is."""
    try:
        pidfd = os.pidfd_open(orphan.pid)
    except ProcessLookupError:
        return True
    try:
        now = _read(orphan.pid)
        if now is None or now.started != orphan.started:
            return True  # its number belongs to another process by now
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(_PATIENCE_MS))
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    finally:
        os.close(pidfd)


def as_text(found: Found, *, killed: bool) -> str:
    """What there is, for people."""
    lines = [_describe(program) for program in found.programs]
    for orphan in found.orphans:
        what = "was ended" if killed and _read(orphan.pid) is None else "its program is gone"
        lines.append(f"orphan {orphan.pid}: {what} ({_megabytes([orphan])}) {orphan.command}")
    if not lines:
        lines.append("No process of theus is there, and nothing else can be left behind.")
    elif not found.orphans:
        lines.append("No orphan is there, and nothing else can be left behind.")
    elif not killed:
        lines.append("To end the orphans: theus reap --kill")
    return "\n".join(lines)


def _describe(program: Program) -> str:
    host = program.host
    zygotes = sum(process.parent == host.pid for process in program.processes)
    workers = len(program.processes) - zygotes
    return (
        f"program {host.pid}{_STATES.get(host.state, '')}: {workers} "
        f"worker{'' if workers == 1 else 's'} ({_megabytes(program.processes)}) {host.command}"
    )


def _megabytes(processes: Iterable[Process]) -> str:
    return f"{sum(process.resident for process in processes) >> 20} MiB resident"


def _all() -> list[Process]:
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [process for process in map(_read, pids) if process is not None]


def _read(pid: int) -> Process | None:
    """A process; None when there is none, or one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().decode("utf-8", "replace").rpartition(")")[2].split()
        command = _command(pid).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    pages = int(fields[21])
    page = os.sysconf("SC_PAGESIZE")
    return Process(pid, int(fields[1]), fields[0], fields[19], command[:200], pages * page)


def _command(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def _is_worker(pid: int) -> bool:
    try:
        return any(word.endswith(_PROGRAM) for word in _command(pid).split(b"\0"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def _has_library(pid: int) -> bool | None:
    """Whether a process has loaded theus; None: this user may not see that.

    The first process of a machine adopts all orphans. A program of this user that is the first one,
    in a container, can be seen; so one that cannot be seen has adopted.
    """
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return any(_LIBRARY in line for line in file)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        return False if pid == 1 else None
