"""The places of the crash matrix: tasks that commit a fault just there.

Where no code of the user runs, a task gets itself called: it puts a method of its own into the
place of one of the worker's, as a debugger or a profiler would.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from crash_faults import CommitsWhenPickled, commit, committed
from theus.contracts import process
from theus.worker import frames

HEADER = 16
# Environment variable: what is to be done at the start, and how often.
ASKED = "CRASH_AS_ASKED"


def take(_: Any) -> None:
    """Nothing: its argument does it, when that is loaded."""


def run(*fault: str) -> None:
    """Do it."""
    commit(*fault)


def give(*fault: str) -> Any:
    """A result that does it when it is pickled."""
    return CommitsWhenPickled(*fault)


def reply(*fault: str) -> None:
    """Do it when half of the answer was written."""
    _at(frames.RESULT, lambda: commit(*fault), sent=HEADER // 2)


def stay_idle(*fault: str) -> int:
    """Do it once the worker waits for its next task; gives its pid."""

    def look(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_name == "next_task":
                signal.setitimer(signal.ITIMER_REAL, 0)
                commit(*fault)
            frame = frame.f_back

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    return os.getpid()


@process(parallel=True)
def fetch(ctx: Any, key: str, *fault: str) -> None:
    """Do it while the answer with an array's descriptor is on its way."""
    with _at(frames.FETCH, lambda: commit(*fault), sent=None):
        ctx.heavy[key]


@process(parallel=True)
def read(ctx: Any, key: str) -> None:
    """Map an array."""
    ctx.heavy[key].sum()


@process(parallel=True)
def retire(ctx: Any, started: str, *fault: str) -> None:
    """Do it when the host is to be told that a retired array is not mapped any more."""
    with _at(frames.RETIRED, lambda: commit(*fault), sent=0):
        open(started, "w").close()
        for number in itertools.count():
            # Asks the host, and handles what has come meanwhile.
            assert str(number) not in ctx.heavy


class _at:
    """Has something done when this worker sends a frame of some kind.

    Args:
        kind: which frames.
        act: what to do.
        sent: how much of the frame is to be sent before that; None: all of it.
    """

    def __init__(self, kind: int, act: Callable[[], None], sent: int | None) -> None:
        self._original = frames.Channel.send
        original = self._original

        def send(channel: Any, number: int, ident: int, payload: bytes = b"") -> None:
            if number == kind:
                whole = frames._HEADER.pack(len(payload), number, 0, ident) + payload
                channel._socket.sendall(whole[:sent])
                act()
            else:
                original(channel, number, ident, payload)

        frames.Channel.send = send  # type: ignore[assignment,method-assign]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        frames.Channel.send = self._original  # type: ignore[method-assign]


def commit_as_asked() -> None:
    """Do it in a process that the pool starts, as often as the environment says."""
    how, log, group, times = os.environ[ASKED].split("\n")
    if len(committed(Path(log))) < int(times):
        commit(how, log, group)
