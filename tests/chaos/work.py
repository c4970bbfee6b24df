"""What the tasks do: functions that run in workers, and children that they fork.

Each says first that it has begun. What is right for its result is said in kinds.py.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

import journal
from patterns import LARGE, SMALL, checksum, pattern
from theus.contracts import process
from theus.structures import StateUpdate


def begin(task: int) -> None:
    journal.own().note("begin", task=task, pid=os.getpid())


def multiply(task: int) -> int:
    """Short, so that the next task is sent ahead."""
    begin(task)
    return task * 7


def item(task: int) -> int:
    """One item of a map."""
    begin(task)
    return task * 3


def compute(task: int, seconds: float) -> int:
    """Keep the processor busy, with the interpreter's lock held."""
    begin(task)
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end:
        rounds += sum(range(1000)) > 0
    return task * 5


def add_to_array(task: int, data: Any) -> tuple[int, Any]:
    """Large both ways, through segments of its own."""
    begin(task)
    seen = checksum(data)
    data += np.uint64(1)
    return seen, data


def invert_rows(task: int, rows: list[tuple[int, str]]) -> list[tuple[str, int]]:
    """Many small objects: decoding the input and encoding the result take longer than the work."""
    begin(task)
    return [(name, number) for number, name in rows]


def text_of(task: int) -> bytes:
    """As large as fits into one frame: sending it takes a while."""
    begin(task)
    return bytes([task % 251]) * 55_000


def refuse(task: int) -> None:
    begin(task)
    raise ValueError(task)


def sleep(task: int) -> None:
    """Until it is ended."""
    begin(task)
    while True:
        signal.pause()


@process(parallel=True)
def read_arrays(ctx: Any, task: int) -> tuple[int, int, int]:
    """Every byte of two arrays, and the number that was published together with them."""
    begin(task)
    table, small = ctx.heavy["table"], ctx.heavy["small"]
    return ctx.state.data["generation"], checksum(table), checksum(small)


@process(parallel=True)
def publish_made(ctx: Any, task: int) -> StateUpdate:
    """A large and a small array for the state, written in place."""
    begin(task)
    large = ctx.heavy.alloc("large", LARGE, np.uint64)
    large[:] = pattern(task, LARGE)
    small = ctx.heavy.alloc("small", SMALL, np.uint64)
    small[:] = pattern(task, SMALL)
    return StateUpdate(data={"made": task}, heavy={"made large": large, "made small": small})


@process(parallel=True, outputs=["heavy.declared"])
def publish_declared(ctx: Any, task: int) -> Any:
    """An array for the state by the contract's outputs."""
    begin(task)
    array = ctx.heavy.alloc("declared", LARGE, np.uint64)
    array[:] = pattern(task, LARGE)
    return array


@process(parallel=True)
def add_one(ctx: Any, task: int) -> StateUpdate:
    """Add one to the counter, unless somebody else does first."""
    begin(task)
    count = ctx.state.data["counter"]
    return StateUpdate(data={"counter": count + 1}, assert_version=ctx.state.version)


@process(parallel=True)
def fork_holder(ctx: Any, task: int) -> int:
    """Fork a child that keeps arrays mapped, whatever becomes of this worker; gives its pid."""
    begin(task)
    views = [ctx.heavy["table"], ctx.heavy["small"]]
    return fork_and_hold("worker", views)


def fork_and_hold(parent: str, views: list[Any]) -> int:
    """Fork a child that reads the arrays again and again, and says so when they change."""
    notes = journal.own()
    pid = os.fork()
    if pid:
        return pid
    try:
        # Not by its parent, which may be killed before it comes to that.
        notes.note("holder", parent=parent, pid=os.getpid(), ppid=os.getppid())
        first = [checksum(view) for view in views]
        while [checksum(view) for view in views] == first:
            time.sleep(0.02)
        notes.note("wrong", text=f"arrays changed under a child that a {parent} forked")
    finally:
        os._exit(0)
    raise AssertionError("not reached")
