"""Processes that the tests run in workers, in a module of their own that imports nothing large."""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import random
import signal
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from processes import region_of
from theus import TheusError
from theus.contracts import process
from theus.structures import StateUpdate


def checksum(array: Any) -> int:
    """A checksum of all bytes of a contiguous array, in the order of memory, read in place."""
    flat = np.ravel(np.asarray(array), order="K")
    assert flat.size == 0 or np.shares_memory(flat, array)
    return zlib.crc32(flat.view(np.uint8)) if flat.size else 0


def address(array: Any) -> int:
    """Where the first element of an array is."""
    return int(array.__array_interface__["data"][0])


def report(path: str, **facts: Any) -> None:
    """Append a line for the host to read while the task goes on."""
    with Path(path).open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **facts}) + "\n")


def reported(path: str) -> list[int]:
    """The pids of those that have reported so far."""
    if not Path(path).exists():
        return []
    lines = Path(path).read_text().splitlines(keepends=True)
    return [json.loads(line)["pid"] for line in lines if line.endswith("\n")]


def wait_at(gate: str) -> None:
    """Wait until the host holds the gate, a FIFO, open for writing."""
    os.close(os.open(gate, os.O_RDONLY))


def wait_for_file(path: str) -> None:
    """Wait until the file is there; it never is, in tests that end the task."""
    while not Path(path).exists():
        time.sleep(0.005)


@process(parallel=True)
def read_all(ctx: Any, key: str) -> dict[str, Any]:
    """Read every byte of a heavy array, and tell where it is."""
    array = ctx.heavy[key]
    return {"pid": os.getpid(), "address": address(array), "checksum": checksum(array)}


@process(parallel=True)
def read_and_wait(ctx: Any, key: str, reports: str, gate: str) -> None:
    """Read every byte of a heavy array, say so, and keep it until the gate opens."""
    array = ctx.heavy[key]
    report(reports, address=address(array), checksum=checksum(array))
    wait_at(gate)


def take_input(data: Any, reports: str, gate: str) -> int:
    """Read an argument, say where it is, and write to it once the gate is open."""
    report(reports, address=address(data), checksum=checksum(data))
    wait_at(gate)
    data += 1
    return checksum(data)


def make_result(length: int) -> Any:
    """A result of its own, no copy of anything."""
    return np.arange(1, length + 1, dtype=np.float64)


def make_result_and_tell(length: int, reports: str) -> Any:
    """A result, and the inode of the memory file that this worker copies it to when it is sent."""
    segments: Any = sys.modules["theus.worker.segments"]
    map_shared = segments.map_shared

    def watched(*args: Any, **options: Any) -> Any:
        made = map_shared(*args, **options)
        if made.writable:
            segments.map_shared = map_shared
            report(reports, inode=region_of("self", made.address).inode)
        return made

    segments.map_shared = watched
    return make_result(length)


def make_results(length: int) -> dict[str, Any]:
    """Several in one, with something small between."""
    return {"up": np.arange(1.0, length), "note": "small", "down": np.arange(length, 1.0, -1.0)}


@process(parallel=True)
def peek(ctx: Any, key: str) -> list[Any]:
    """The values of a small heavy array."""
    return list(ctx.heavy[key].tolist())


@process(parallel=True)
def shape_of(ctx: Any, key: str) -> Any:
    """What a heavy array looks like."""
    array = ctx.heavy[key]
    return array.shape, array.strides, array.dtype, array.flags.writeable


@process(parallel=True)
def read_all_of_small(ctx: Any, _: int) -> float:
    """A short task, so that every worker has run one."""
    return float(ctx.heavy["small"].sum())


def nothing(*_: Any, **__: Any) -> None:
    """Takes anything."""


def echo(value: Any) -> Any:
    """Gives back what it got."""
    return value


@process(parallel=True)
def add_to_cow(ctx: Any, key: str) -> float:
    """Write to a private copy."""
    mine = ctx.heavy.cow(key)
    mine += 1
    return float(mine[0])


@process(parallel=True)
def alloc(ctx: Any, key: str, shape: Any, dtype: Any = "float64") -> Any:
    """An array for a result."""
    return ctx.heavy.alloc(key, shape, dtype)


def wait_and_give(value: Any, reports: str, gate: str) -> Any:
    """Say that it runs, and give the value once the gate is open."""
    report(reports)
    wait_at(gate)
    return value


@process(parallel=True)
def read_twice(ctx: Any, key: str, reports: str, gate: str) -> Any:
    """Look at the state before and after the gate."""
    first = ctx.state.version, float(ctx.heavy[key][0]), ctx.state.data["step"]
    report(reports)
    wait_at(gate)
    return first, (ctx.state.version, float(ctx.heavy[key][0]), ctx.state.data["step"])


@process(parallel=True)
def make_memory_writable(ctx: Any, key: str) -> int:
    """What a C extension would try that insists; gives the error number, 0 for success."""
    return make_pages_writable(ctx.heavy[key])


def make_pages_writable(array: Any) -> int:
    """Ask the kernel to let this process write to an array's pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = os.sysconf("SC_PAGESIZE")
    start = address(array) // page * page
    failed = libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(page), mmap.PROT_WRITE)
    return ctypes.get_errno() if failed else 0


@process(parallel=True)
def grow_output(ctx: Any, key: str, length: int) -> Any:
    """An array that is written in place, with a view that is kept and written to later."""
    array = ctx.heavy.alloc(key, length)
    array[:] = np.arange(length)
    kept.append(np.asarray(array)[:10])
    return array


def write_to_kept() -> list[float]:
    """Write to what `grow_output` kept; gives what is there now."""
    view = kept[-1]
    view[:] = -1.0
    return [float(n) for n in view]


kept: list[Any] = []


@process(parallel=True)
def keep(ctx: Any, key: str) -> None:
    """Have a view of an array outlive its task."""
    kept.append(ctx.heavy[key])


def let_go() -> None:
    """Drop what was kept."""
    kept.clear()


@process(parallel=True)
def draw(ctx: Any, _: Any = None) -> float:
    """A number from the task's own generator."""
    return float(ctx.rng.random())


def draw_globally(reports: str = "", gate: str = "") -> tuple[int, dict[str, Any]]:
    """Numbers from the generators that a process has."""
    if reports:
        report(reports)
        wait_at(gate)
    numbers = {"random": random.random(), "numpy.random": float(np.random.rand())}
    return os.getpid(), {**numbers, "os": os.urandom(8)}


def print_both(text: str) -> None:
    """To both streams."""
    print("out:", text)
    print("err:", text, file=sys.stderr)


@process(parallel=True)
def log(ctx: Any, word: str, number: int) -> None:
    """Records of several levels."""
    ctx.log.debug("not shown")
    ctx.log.warning("%s and %d", word, number)
    try:
        number / 0
    except ZeroDivisionError:
        ctx.log.exception("it failed")


@process(parallel=True)
def use_ctx_in_a_handler(ctx: Any, patience: float) -> tuple[int, list[str]]:
    """Use ctx in a handler that interrupts uses of ctx, until one was served and one refused, or
    for as long as the patience lasts: (times served, texts of refusals)."""
    served = 0
    refused: set[str] = set()

    def handler(*_: Any) -> None:
        nonlocal served
        try:
            ctx.log.info("progress")
            ctx.heavy.alloc("scratch", 1)
            served += 1
        except TheusError as error:
            refused.add(str(error))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        deadline = time.monotonic() + patience
        while not (served and refused) and time.monotonic() < deadline:
            # Once each, or slow handlers would interrupt handlers without end.
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.001))
            ctx.log.info("step")
            ctx.heavy.alloc("mine", 1)
            sum(range(1000))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return served, sorted(refused)


@process(parallel=True)
def give_up_often(ctx: Any, key: str, times: int, patience: float) -> tuple[int, int]:
    """Use ctx under a time limit, until it was used and given up that often, or for as long as
    the patience lasts: (uses, times given up)."""

    class Enough(Exception):
        pass

    def give_up(*_: Any) -> None:
        raise Enough

    uses = given_up = 0
    kept: list[Any] = []
    before = signal.signal(signal.SIGALRM, give_up)
    deadline = time.monotonic() + patience
    try:
        while min(uses, given_up) < times and time.monotonic() < deadline:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.0004))
                for _ in range(20):
                    uses += 1
                    assert str(uses) not in ctx.heavy
                    kept.append(ctx.heavy.cow(key))
                    ctx.log.debug("step")
                time.sleep(0.001)
            except Enough:
                given_up += 1
            kept.clear()  # now: Python drops what is raised while a finalizer runs
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gc.collect()  # what was raised keeps frames, and they keep what was asked for
    return uses, given_up


def set_handlers() -> list[str]:
    """What `signal` says wrongly of handlers."""
    wrong = []
    handlers = (signal.default_int_handler, signal.SIG_IGN, len, lambda *_: None, signal.SIG_DFL)
    before: Any = signal.SIG_DFL
    for handler in handlers:
        if signal.signal(signal.SIGUSR1, handler) is not before:
            wrong.append(f"signal() does not give {before}")
        if signal.getsignal(signal.SIGUSR1) is not handler:
            wrong.append(f"getsignal() does not give {handler}")
        before = handler
    called: list[Any] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: called.append((number, frame)))
    signal.raise_signal(signal.SIGUSR1)
    if called != [(signal.SIGUSR1, sys._getframe())]:
        wrong.append(f"the handler was called with {called}")
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    return wrong


def fork_when_signalled(file: str) -> int:
    """Have this worker fork at SIGUSR1, and its child come back from the handler; the handler
    leaves the child's number in a file once that has ended."""

    def handler(*_: Any) -> None:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            Path(file).write_text(str(child))

    signal.signal(signal.SIGUSR1, handler)
    return os.getpid()


@process(parallel=True)
def look_around(ctx: Any, rate: float) -> dict[str, Any]:
    """What a task sees of the state."""
    refused = []
    for change in (
        lambda: ctx.state.data["domain"].update(rate=3),
        lambda: setattr(ctx.domain, "rate", 3),
    ):
        try:
            change()
        except Exception as error:
            refused.append(type(error).__name__)
    return {
        "rate": ctx.domain.rate,
        "stored rate": ctx.state.domain.rate,
        "deep": ctx.domain["deep"].to_dict(),
        "deep.a.1.b": ctx.state.data["domain"]["deep"]["a"][1]["b"],
        "when": dict(ctx.domain.when),
        "other": ctx.state["other"],
        "version": ctx.state.version,
        "refused": refused,
    }


@process(parallel=True, outputs=["report"])
def one_output(ctx: Any) -> dict[str, int]:
    """A value for the state."""
    return {"rows": 3}


@process(parallel=True, outputs=["first", "second"])
def two_outputs(ctx: Any) -> Any:
    """Two, of which one is left out."""
    return 1, None


@process(parallel=True, outputs=["heavy.made"])
def heavy_output(ctx: Any, length: int) -> Any:
    """An array for the state."""
    array = ctx.heavy.alloc("made", length)
    array[:] = np.arange(length)
    return array


@process(parallel=True, outputs=["heavy.made"])
def heavy_output_and_tell(ctx: Any, length: int, reports: str) -> Any:
    """The same, and the inode of the memory file that it is written to."""
    array = ctx.heavy.alloc("made", length)
    array[:] = np.arange(length)
    report(reports, inode=region_of("self", address(array)).inode)
    return array


@process(parallel=True)
def heavy_update(ctx: Any, length: int) -> StateUpdate:
    """The same, in other words."""
    array = ctx.heavy.alloc("anything", length)
    array[:] = np.arange(length)
    return StateUpdate(heavy={"made": array})


@process(parallel=True)
def part_of_output(ctx: Any, length: int) -> Any:
    """A view of an array that was allocated."""
    array = ctx.heavy.alloc("unnamed", length)
    array[:] = np.arange(length)
    return array[10:13]


def modules() -> list[str]:
    """What this worker has imported."""
    import theus

    assert theus.TheusEngine is not None
    return sorted(sys.modules)


@process
async def in_host(ctx: Any) -> Any:
    """A process that runs in the host."""
    return os.getpid() == ctx.worker.pid, float(ctx.heavy["x"].sum())
