"""Tasks that wait hold the version that they were submitted at, and their inputs.

A program that makes new ones faster than tasks end is slowed down to their pace, instead of being
told that the heap is full.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jobs
from conftest import EngineFactory
from gate import Gate
from polling import until
from theus import HeapFull, TheusEngine, allocation, process

MIB = 1 << 20
ROUNDS = 12  # of 8 MiB each, in a heap of 40


@process(parallel=True)
def first_of(ctx: Any, key: str) -> int:
    """The first byte of a version."""
    return int(ctx.heavy[key][0])


@process(parallel=True, inputs=["heavy.k"])
def first_of_declared(ctx: Any) -> int:
    """The same, by a contract: the host looks at the version before it sends the task."""
    return int(ctx.heavy["k"][0])


def first_byte(data: bytes) -> int:
    return data[0]


def make_version(engine: TheusEngine, number: int) -> None:
    array = engine.heavy.alloc("k", 8 * MIB, np.uint8)
    array[:] = number
    array.publish()


@pytest.fixture
def blocked(make_engine: EngineFactory, gate: Gate) -> TheusEngine:
    """An engine whose only worker waits at the gate."""
    engine = make_engine(heap="40MB", workers=1)
    engine.submit(jobs.wait_at, gate.path)
    return engine


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when an allocation was refused once and is about to wait for tasks."""
    event = threading.Event()

    original = allocation.collect

    def collect() -> None:
        original()
        event.set()

    monkeypatch.setattr(allocation, "collect", collect)
    return event


@pytest.fixture
def opens_late(waiting: threading.Event, gate: Gate) -> Iterator[None]:
    """Opens the gate when an allocation waits, or at the end of a test that has failed before."""
    thread = threading.Thread(target=lambda: (waiting.wait(), gate.open()))
    thread.start()
    yield
    waited = waiting.is_set()
    waiting.set()
    thread.join()
    assert waited, "no allocation had to wait"


def test_new_versions_wait_for_tasks_that_read_the_old_ones(
    blocked: TheusEngine, opens_late: None
) -> None:
    results = []
    for number in range(ROUNDS):
        make_version(blocked, number)
        results.append(blocked.submit(first_of, key="k"))
    assert [r.result() for r in results] == list(range(ROUNDS))


def test_so_do_versions_that_a_contract_has_looked_at(
    blocked: TheusEngine, opens_late: None
) -> None:
    results = []
    for number in range(ROUNDS):
        make_version(blocked, number)
        results.append(blocked.submit(first_of_declared))
    assert [r.result() for r in results] == list(range(ROUNDS))


def test_so_do_versions_of_awaited_calls(blocked: TheusEngine, opens_late: None) -> None:
    """The loop waits along: the ends of tasks do not need it."""

    async def main() -> list[int]:
        results = []
        for number in range(ROUNDS):
            make_version(blocked, number)
            results.append(asyncio.ensure_future(blocked.execute(first_of_declared)))
            await asyncio.sleep(0)  # it is submitted
        return await asyncio.gather(*results)

    assert asyncio.run(main()) == list(range(ROUNDS))


@pytest.mark.filterwarnings("ignore::theus.LargeArgumentWarning")
def test_large_inputs_wait_for_those_before(blocked: TheusEngine, opens_late: None) -> None:
    results = [blocked.submit(first_byte, bytes([n]) * (8 * MIB)) for n in range(ROUNDS)]
    assert [r.result() for r in results] == list(range(ROUNDS))


@pytest.mark.parametrize("how", ["submitted", "awaited", "run in a thread"])
def test_results_that_went_on_as_arguments(
    make_engine: EngineFactory, gate: Gate, opens_late: None, how: str
) -> None:
    """Nobody but the task has the array: it comes back with the task's end."""
    engine = make_engine(heap="40MB", workers=1)
    box = [engine.run(jobs.alloc, "made", 3 * MIB)]
    engine.submit(jobs.wait_at, gate.path)
    if how == "submitted":
        engine.submit(np.sum, box.pop())
        make_next(engine)
    elif how == "awaited":
        asyncio.run(awaited_sum(engine, box))
    else:
        thread = threading.Thread(target=lambda: engine.run(np.sum, box.pop()))
        thread.start()
        until(lambda: engine.stats()["tasks"]["queued"] == 1, "the task to be queued")
        make_next(engine)
        thread.join()


def make_next(engine: TheusEngine) -> None:
    assert engine.heavy.alloc("next", 3 * MIB).nbytes == 24 * MIB


async def awaited_sum(engine: TheusEngine, box: list[Any]) -> None:
    total = asyncio.ensure_future(engine.execute(np.sum, box.pop()))
    await asyncio.sleep(0)  # it is submitted
    make_next(engine)
    assert await total == 0.0


def test_memory_that_a_worker_lets_go_of_after_its_next_task(
    make_engine: EngineFactory, gate: Gate, opens_late: None
) -> None:
    """It reads in the midst of a task that the array of the one before is not needed any more."""
    engine = make_engine(heap="40MB", workers=1)
    engine.heavy.put("k", np.ones(24 * MIB, np.uint8))
    engine.heavy.put("other", np.ones(1))
    engine.run(first_of, key="k")
    engine.submit(jobs.read_and_wait, key="other", reports=gate.reports, gate=gate.path)
    gate.arrived(1)
    del engine.heavy["k"]
    make_next(engine)


# ---- when waiting is of no use -------------------------------------------------------------------


def test_an_old_version_that_the_program_has_as_well(blocked: TheusEngine, gate: Gate) -> None:
    mine = blocked.heavy.put("k", np.ones(24 * MIB, np.uint8))
    blocked.submit(first_of, key="k")
    del blocked.heavy["k"]
    assert_full_at_once(blocked)
    del mine
    gate.open()


def test_an_old_version_that_is_too_small(blocked: TheusEngine, gate: Gate) -> None:
    blocked.heavy.put("large", np.ones(24 * MIB, np.uint8))
    blocked.heavy.put("k", np.ones(4 * MIB, np.uint8))
    blocked.submit(first_of, key="k")
    del blocked.heavy["k"]
    assert_full_at_once(blocked)
    gate.open()


def assert_full_at_once(engine: TheusEngine) -> None:
    with pytest.raises(HeapFull) as caught:
        engine.heavy.alloc("next", 24 * MIB, np.uint8)
    assert (caught.value.held_by_tasks, "backlog" in caught.value.detail) == (0, False)


def test_patience_ends_when_no_memory_comes_back(
    make_engine: EngineFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends of tasks that hold nothing are no reason to wait on."""
    monkeypatch.setattr(allocation, "BACKLOG_PATIENCE", 0.5)
    engine = make_engine(heap="40MB", workers=2)
    engine.heavy.put("k", np.ones(24 * MIB, np.uint8))
    holder = engine.submit(jobs.read_and_wait, key="k", reports=gate.reports, gate=gate.path)
    gate.arrived(1)
    del engine.heavy["k"]
    others = threading.Thread(target=run_until, args=(engine, over := threading.Event()))
    others.start()
    try:
        with pytest.raises(HeapFull) as caught:
            engine.heavy.alloc("next", 24 * MIB, np.uint8)
    finally:
        over.set()
        others.join()
    assert caught.value.held_by_tasks == 24 * MIB
    assert not holder.done()
    gate.open()


def run_until(engine: TheusEngine, over: threading.Event) -> None:
    while not over.is_set():
        engine.run(pow, 2, 3)
