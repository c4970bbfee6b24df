"""What a task, an array and a swap cost as there is more of everything."""

from __future__ import annotations

import ctypes as c
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from peers import Entry
from peers.theus_ import Theus

from . import Goal, Question, QuestionSet, Task

if TYPE_CHECKING:
    from theus import TheusEngine

KEYS = (1, 10, 100, 1_000, 10_000, 100_000)
SIZES = {"1 KiB": 1 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20, "1 GiB": 1 << 30, "8 GiB": 8 << 30}
PENDING = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2, 4, 8, 16, 32)
GENERATIONS = (1_000, 10_000, 100_000)
TOUCHES = 15

BY_KEYS = Question(
    "a call that does nothing, by the number of heavy keys",
    "µs",
    (Goal("100,000 keys", "1 key", 1.1),),
)
SWAP = Question(
    "compare_and_swap of one value, by the number of keys",
    "µs",
    (Goal("100,000 keys", "10 keys", 1.3),),
    "From Python: encoding the value and taking a snapshot of the version are in it.",
)
SWAP_IN_C = Question(
    "theus_cas of one value, by the number of keys",
    "µs",
    (Goal("100,000 keys", None, 5e-6),),
    "The call of the C interface, made from a loop in Python, which takes about 1 µs of it.",
)
TOUCH = Question(
    "the first touch of an array in a worker, by its size",
    "µs",
    (Goal("8 GiB", None, 60e-6), Goal("8 GiB", "1 MiB", 1.1)),
    "What a task takes longer if its worker has never had the array: it comes with the task.",
)
BY_PENDING = Question(
    "one call, by how many are under way at once",
    "µs",
    (),
    "Time for all, by their number.",
)
BY_WORKERS = Question(
    "one of 1,000 calls under way at once, by the number of workers",
    "µs",
    (),
    "There are two cores; more workers cannot be faster here.",
)
BY_GENERATION = Question(
    "publishing a small array once more, by how often it was published before", "µs"
)


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    if entry.name != "theus":
        return
    from theus_work import nothing_with_ctx

    from theus import TheusEngine

    yield from _by_keys()
    yield from _first_touches()
    with TheusEngine(workers=2) as engine:
        gather = Theus(engine).gather
        gather(nothing_with_ctx, 1000)
        for pending in PENDING:
            once = partial(gather, nothing_with_ctx, pending)
            calls = max(1, min(50, 10_000 // pending))
            yield BY_PENDING.name, Task(counted(pending, "call"), once, calls, pending, warm_up=0)
    for workers in WORKERS:
        with TheusEngine(workers=workers) as engine:
            once = partial(Theus(engine).gather, nothing_with_ctx, 1000)
            yield BY_WORKERS.name, Task(counted(workers, "worker"), once, 3, 1000)
    yield from _generations()


def _by_keys() -> Iterator[tuple[str, Task]]:
    from theus_work import nothing_with_ctx

    from theus import TheusEngine

    array = np.zeros(4)
    for keys in KEYS:
        with TheusEngine(workers=2) as engine:
            state = engine.compare_and_swap(
                0,
                data={f"group{i % 100}.key{i}": i for i in range(keys)},
                heavy={f"array{i}": array for i in range(keys)},
            )
            name = counted(keys, "key")
            call = partial(engine.run, nothing_with_ctx)
            yield BY_KEYS.name, Task(name, call, calls=1000, warm_up=100)

            def swap(engine: TheusEngine = engine) -> None:
                engine.compare_and_swap(engine.state.version, data={"group0.key0": 1})

            yield SWAP.name, Task(name, swap, calls=1000, warm_up=100)
            yield SWAP_IN_C.name, Task(name, _cas(engine), calls=20_000, warm_up=100)
            del state


def _cas(engine: TheusEngine) -> Callable[[], object]:
    """theus_cas of one value, whatever the version, with all arguments made before."""
    from theus import _abi as abi
    from theus._core import core

    value = b"next"
    update = abi.fresh(abi.Update)
    update.op, update.path, update.codec = 3, b"group0.key0", abi.CODEC_RAW
    update.ptr, update.len = c.cast(c.c_char_p(value), c.c_void_p).value, len(value)
    version, any_version = c.c_uint64(), 2**64 - 1
    cas, handle, out = core().raw["theus_cas"], engine._session.engine, c.byref(version)
    updates = (abi.Update * 1)(update)

    def once(_: object = value) -> object:
        assert not cas(handle, any_version, updates, 1, 0, out, None)
        return updates

    return once


def _first_touches() -> Iterator[tuple[str, Task]]:
    """A worker that has just read other arrays for the first time, and now these; what each takes
    less what it takes once more. Then the same with the next worker.

    The arrays stay, and none of their memory is given back meanwhile: a virtual machine may lend
    free memory to others, and whatever a process then asks of its kernel waits for it to come back.
    """
    from theus_work import first_of_key, nothing_with_ctx

    from theus import TheusEngine

    differences: dict[str, list[float]] = {name: [] for name in SIZES}
    with TheusEngine(workers=1) as engine:
        for name, nbytes in SIZES.items():
            engine.heavy.alloc(name, nbytes // 8).publish()
        for i in range(20):
            engine.heavy.put(f"other{i}", np.zeros(1 << 17))

        def publish(name: str) -> None:
            """The same memory under the name that the function reads."""
            version, array = engine.state.version, engine.heavy[name]
            engine.compare_and_swap(version, heavy={"now": array})

        call = partial(engine.run, first_of_key, "now")
        for _ in range(TOUCHES):
            for i in range(20):
                publish(f"other{i}")
                call()
            for name in random.sample(list(SIZES), len(SIZES)):
                publish(name)
                for _ in range(5):
                    engine.run(nothing_with_ctx)
                first = timed(call)
                again = sorted(timed(call) for _ in range(9))[4]
                differences[name].append(first - again)
            _replace_worker(engine)
    for name, found in differences.items():
        yield TOUCH.name, Task(name, lambda: None, fixed=sorted(found)[len(found) // 2])


def _replace_worker(engine: TheusEngine) -> None:
    (worker,) = engine.stats()["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    while engine.run(os.getpid) == worker["pid"]:
        pass


def _generations() -> Iterator[tuple[str, Task]]:
    from theus import TheusEngine

    with TheusEngine(workers=1) as engine:
        array = np.zeros(128)
        done = 0
        for generations in GENERATIONS:
            while done < generations - 500:
                engine.heavy.put("a", array)
                done += 1
            once = partial(engine.heavy.put, "a", array)
            yield BY_GENERATION.name, Task(counted(generations, "time"), once, calls=500, warm_up=0)
            done += 500


def timed(once: partial[object]) -> float:
    began = time.perf_counter()
    once()
    return time.perf_counter() - began


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


SET = QuestionSet(
    (BY_KEYS, SWAP, SWAP_IN_C, TOUCH, BY_PENDING, BY_WORKERS, BY_GENERATION), tasks, rounds=2
)
