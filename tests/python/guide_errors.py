"""Where the messages in the table of docs/agents.md come from, in the order of its rows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from theus import TheusEngine, process

__all__ = ["PRODUCERS"]

Producer = Callable[[TheusEngine], Any]


@process(parallel=True)
def read_heavy(ctx: Any, key: str) -> float:
    return float(ctx.heavy[key].sum())


@process(parallel=True)
def write_heavy(ctx: Any) -> None:
    ctx.heavy["k"][0] = 1


@process(parallel=True)
def write_domain(ctx: Any) -> None:
    ctx.domain.x = 1


@process(parallel=True, inputs=["heavy.k"])
def reads_more(ctx: Any) -> float:
    return float(ctx.heavy["other"].sum())


@process(parallel=True)
def misspells(ctx: Any, rate: float) -> Any:
    return ctx.input.rat


def count(_: int) -> None:
    global COUNTED
    COUNTED = 1


COUNTED = 0


def _publish(engine: TheusEngine) -> Any:
    return engine.heavy.put("k", np.zeros(4))


def lock(engine: TheusEngine) -> None:
    engine.run(max, [threading.Lock()])


def written_global(engine: TheusEngine) -> None:
    engine.run(count, 1)


def data_as_inputs(_: TheusEngine) -> None:
    process(inputs=[np.zeros(3)], parallel=True)  # type: ignore[list-item]


def large_argument(engine: TheusEngine) -> None:
    engine.run(len, np.zeros(1 << 20))


def unlinked(engine: TheusEngine) -> None:
    _publish(engine).shm.unlink()


def by_hand(engine: TheusEngine) -> None:
    SharedMemory(name=_publish(engine).shm.name)


def written_array(engine: TheusEngine) -> None:
    _publish(engine)
    engine.run(write_heavy)


def unpublished(engine: TheusEngine) -> None:
    _array = engine.heavy.alloc("k", 3)
    engine.run(read_heavy, key="k")


def written_domain(engine: TheusEngine) -> None:
    engine.run(write_domain)


def undeclared(engine: TheusEngine) -> None:
    _publish(engine)
    engine.run(reads_more)


def conflict(engine: TheusEngine) -> None:
    engine.compare_and_swap(0, data={"a": 1})
    engine.compare_and_swap(0, data={"a": 2})


def unknown(engine: TheusEngine) -> None:
    engine.run("read_heayv")


def misspelt(engine: TheusEngine) -> None:
    engine.run(misspells, rate=1.0)


def too_long(engine: TheusEngine) -> None:
    engine.options(timeout=0.05).run(time.sleep, 1000)


def crash(engine: TheusEngine) -> None:
    engine.run(os.abort)


def full(_: TheusEngine) -> None:
    with TheusEngine(workers=1, heap="1MB") as small:
        small.heavy.alloc("k", 1 << 20)


def frames_in_use(engine: TheusEngine) -> None:
    frames = engine.heavy.stream("frames", 10, keep=2)
    kept = [frames.next(), frames.next()]
    frames.next(timeout=0)
    del kept


def forked(engine: TheusEngine) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            engine.run(pow, 2, 3)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        raise Said(said.read())


class Said(Exception):
    """What another process was told, with the name of its exception."""


def closed(_: TheusEngine) -> None:
    engine = TheusEngine(workers=1)
    engine.close()
    engine.run(pow, 2, 3)


PRODUCERS: list[Producer] = [
    lock,
    written_global,
    data_as_inputs,
    large_argument,
    unlinked,
    by_hand,
    written_array,
    unpublished,
    written_domain,
    undeclared,
    conflict,
    unknown,
    misspelt,
    too_long,
    crash,
    full,
    frames_in_use,
    forked,
    closed,
]
