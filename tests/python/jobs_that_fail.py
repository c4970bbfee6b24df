"""Processes that end badly: that raise, die, never end, or do what must not be done."""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import signal
import sys
import threading
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

from jobs import report
from theus.contracts import process
from theus.structures import StateUpdate


@process(parallel=True)
def apply_to_heavy(ctx: Any, action: Any, key: str) -> Any:
    """Do something with a heavy array."""
    return action(ctx.heavy[key])


@process(parallel=True)
def overwrite_by_address(ctx: Any, key: str) -> None:
    """Write as a C extension might, that does not look at numpy's flag."""
    array = ctx.heavy[key]
    ctypes.memset(array.ctypes.data, 0, array.nbytes)


@process(parallel=True)
def unlink(ctx: Any, key: str) -> None:
    """What a user of SharedMemory would do."""
    ctx.heavy[key].shm.unlink()


@process(parallel=True)
def open_by_name(ctx: Any, key: str) -> None:
    """What another user of SharedMemory would do."""
    SharedMemory(name=ctx.heavy[key].shm.name)


@process(parallel=True)
def evaluate(ctx: Any, expression: str, **_: Any) -> Any:
    """An expression that uses ctx."""
    return eval(expression, {"ctx": ctx})


class Unpicklable(Exception):
    """It pickles, and does not load again: __init__ takes more than args holds."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.number = number


def raise_unpicklable(reason: str) -> None:
    """Raise it."""
    raise Unpicklable(reason, 3)


def return_lock(nested: bool) -> Any:
    """A result that cannot leave the worker."""
    lock = threading.Lock()
    return {"fine": 1, "deep": [0, lock]} if nested else lock


@process(parallel=True)
def update_with_lock(ctx: Any) -> StateUpdate:
    """A change of the state that cannot leave the worker."""
    return StateUpdate(data={"a": threading.Lock()})


def note_and_maybe_die(number: int, log: str, fatal: bool) -> int:
    """Note that it began; then end, well or not."""
    with Path(log).open("a") as file:
        file.write(f"{number}\n")
    if fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleep_for_ever(reports: str | None = None) -> None:
    """Say that it runs, and never end."""
    if reports is not None:
        report(reports)
    while True:
        signal.pause()


def compute_for_ever(reports: str) -> None:
    """Say that it runs, and keep a CPU busy, with the GIL held."""
    report(reports)
    while True:
        pass


def loop_in_c(reports: str) -> None:
    """Say that it runs, and never come back from C, with the GIL held."""
    report(reports)
    collections.deque(itertools.repeat(0), maxlen=0)


def stop_itself(reports: str) -> None:
    """Say that it runs, and stop this worker."""
    report(reports)
    os.kill(os.getpid(), signal.SIGSTOP)


@process(parallel=True)
def draw_after_a_crash(ctx: Any, marker: str) -> float:
    """The first time its worker dies, after it has drawn."""
    number = float(ctx.rng.random())
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die() -> None:
    """End this worker."""
    os.kill(os.getpid(), signal.SIGKILL)


class Refused(Exception):
    """An exception with more than a text, that can travel."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason, number)
        self.number = number


def refuse(reason: str, number: int) -> None:
    """Raise it."""
    raise Refused(reason, number)


def raise_from() -> None:
    """An exception with a cause."""
    try:
        raise LookupError("inner")
    except LookupError as inner:
        raise RuntimeError("outer") from inner


def raise_timeout() -> None:
    """An error that a function may well have of its own."""
    raise TimeoutError("of my own")


def leave() -> None:
    """What a script would do."""
    sys.exit(3)


def interrupt() -> None:
    """What Ctrl-C raises."""
    raise KeyboardInterrupt


def stop_generator() -> None:
    """Something that is no Exception either."""
    raise GeneratorExit


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def raise_without_text() -> None:
    """Raise one that cannot say what it is."""
    raise Mute


def raise_deep() -> None:
    """Raise one that holds a very deep list."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    raise Holding(deep)


def raise_large() -> None:
    """Raise one with a long text."""
    raise ValueError("x" * (1 << 21))


class Holding(Exception):
    """An exception with something in it."""

    def __init__(self, held: Any) -> None:
        super().__init__("holding")
        self.held = held


def recurse() -> None:
    """Without end."""
    recurse()


def note_and_raise(log: str) -> None:
    """Note that it ran, and raise."""
    with Path(log).open("a") as file:
        file.write("ran\n")
    raise ValueError("on purpose")


def crash_until(log: str, tries: int) -> int:
    """Kill the worker until it is the given try."""
    with Path(log).open("a") as file:
        file.write("try\n")
    count = len(Path(log).read_text().split())
    if count < tries:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def note_unless(number: int, log: str, bad: int) -> int:
    """Note that it ran; one of them raises."""
    if number == bad:
        raise Refused("five", 5)
    with Path(log).open("a") as file:
        file.write(f"{number}\n")
    return number


def first_then_sleep(number: int, reports: str) -> int:
    """Give 0 for 0, and never end for others."""
    if number:
        sleep_for_ever(reports)
    return number


def clear(array: Any) -> None:
    """Write to an array."""
    array[:] = 0
