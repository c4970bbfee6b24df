"""Makes system calls of the zygote or of workers fail, without a change of what is tested.

A module to be preloaded: the zygote imports it, and forked workers have it. What is to fail stands
in a file, so that it can change while workers run; see `Plan`.
"""

from __future__ import annotations

import _socket
import array
import ctypes
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "FAILING_CALLS"  # names the file
EVERY = 0  # instead of a call's number

_ZYGOTE = os.getpid()


class Plan(NamedTuple):
    """What fails.

    Attributes:
        call: one of those that are wrapped below.
        number: the errno.
        nth: which of its calls, counted in each process from 1 since this plan was made; or EVERY.
        times: how often it happens, in all processes.
        log: a file with a line for each time that it has happened; no two plans share one.
    """

    call: str
    number: int
    nth: int
    times: int
    log: str

    def happened(self) -> int:
        """How often."""
        try:
            with open(self.log) as lines:
                return len(lines.readlines())
        except FileNotFoundError:
            return 0

    def write(self, path: Path) -> None:
        """Let it be the one that counts."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self))
        new.replace(path)


class _Counter:
    """Counts this process's calls towards the plan that counts."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._calls = 0

    def due(self, call: str) -> Plan | None:
        """Count a call; gives the plan if it is to fail."""
        try:
            with open(os.environ[VARIABLE]) as file:
                plan = Plan(*json.load(file))
        except (KeyError, FileNotFoundError):
            return None
        if plan.call != call:
            return None
        if plan != self._plan:
            self._plan, self._calls = plan, 0
        self._calls += 1
        if plan.nth not in (EVERY, self._calls) or plan.happened() >= plan.times:
            return None
        with open(plan.log, "a") as log:
            log.write(f"{call} in {os.getpid()}\n")
        return plan


_counter = _Counter()


def _fails(name: str, original: Callable[..., Any], *, workers: bool) -> Callable[..., Any]:
    """A function that fails when it is due, in workers or else in the zygote."""

    def call(*args: Any, **options: Any) -> Any:
        plan = _counter.due(name) if (os.getpid() != _ZYGOTE) is workers else None
        if plan is not None:
            raise OSError(plan.number, os.strerror(plan.number))
        return original(*args, **options)

    return call


def _receive(self: socket.socket, *args: Any) -> Any:
    """As recvmsg, but descriptors may be lost, as when the process has no room for them."""
    data, ancillary, flags, address = _recvmsg(self, *args)
    if not ancillary or os.getpid() == _ZYGOTE or _counter.due("descriptors") is None:
        return data, ancillary, flags, address
    for _, _, content in ancillary:
        for fd in array.array("i", content):
            os.close(fd)
    return data, [], flags | socket.MSG_CTRUNC, address


def _map(*args: Any) -> Any:
    plan = _counter.due("mmap")
    if plan is None:
        return _mmap(*args)
    ctypes.set_errno(plan.number)
    return mapping._MAP_FAILED


_recvmsg = _fails("recvmsg", _socket.socket.recvmsg, workers=True)

if VARIABLE in os.environ:  # else this is the host, which imports it for Plan
    from theus import mapping

    _mmap = mapping._libc.mmap
    mapping._libc.mmap = _map
    os.fork = _fails("fork", os.fork, workers=False)
    os.pidfd_open = _fails("pidfd_open", os.pidfd_open, workers=False)
    patched: Any = socket.socket
    patched.send = _fails("send", _socket.socket.send, workers=True)
    patched.sendmsg = _fails("sendmsg", _socket.socket.sendmsg, workers=False)  # with a pidfd
    patched.recvmsg = _receive
