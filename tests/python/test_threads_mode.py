"""THEUS_USE_PROCESSES=0: the same programs on threads of this process."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import numpy as np
import pytest

from conftest import EngineFactory
from theus import EngineClosed, StateUpdate, TaskTimeout, TheusEngine, process


@pytest.fixture
def threads_engine(make_engine: EngineFactory, monkeypatch: pytest.MonkeyPatch) -> TheusEngine:
    monkeypatch.setenv("THEUS_USE_PROCESSES", "0")
    return make_engine(seed=3)


@process(parallel=True, outputs=["domain.total", "heavy.y"])
def job(ctx: Any, factor: int) -> tuple[float, Any]:
    with pytest.raises(ValueError, match="read-only"):
        ctx.heavy["x"][0] = 1
    private = ctx.heavy.cow("x")
    private *= factor
    out = ctx.heavy.alloc("y", private.shape)
    out[:] = private
    return float(out.sum()), out


def where(ctx: Any) -> tuple[int, int, bool]:
    return os.getpid(), ctx.worker.index, threading.current_thread() is threading.main_thread()


def draw(ctx: Any, _: int = 0) -> float:
    return float(ctx.rng.random())


def test_no_process_is_started(threads_engine: TheusEngine) -> None:
    pids = {threads_engine.run(where)[0], threads_engine.submit(where).result(30)[0]}
    assert pids == {os.getpid()}
    assert not threads_engine.submit(where).result(30)[2]
    stats = threads_engine.stats()
    assert [w["pid"] for w in stats["workers"]] == [os.getpid()] * 2
    assert stats["tasks"]["done"] >= 2


def test_the_same_context_and_outputs(threads_engine: TheusEngine) -> None:
    engine = threads_engine
    engine.heavy.put("x", np.arange(4.0))
    total, _ = engine.run(job, factor=2)
    assert total == engine.state.domain.total == 12
    assert engine.heavy["y"].tolist() == [0, 2, 4, 6]

    def update(ctx: Any, **inputs: Any) -> StateUpdate:
        return StateUpdate("seen", sorted(ctx.input), {"domain": {"d": ctx.domain.total}})

    asyncio.run(engine.execute(update, a=1, b=2))
    assert engine.state.seen == ["a", "b"]
    assert engine.state.domain.d == 12


def test_the_same_random_numbers(make_engine: EngineFactory, threads_engine: TheusEngine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THEUS_USE_PROCESSES")
        processes = make_engine(seed=3)
    for engine_run in (
        lambda e: e.run(draw),
        lambda e: e.submit(draw, 1).result(30),
        lambda e: list(e.map(draw, range(5))),
        lambda e: asyncio.run(e.execute(draw)),
    ):
        assert engine_run(threads_engine) == engine_run(processes)


def test_maps(threads_engine: TheusEngine) -> None:
    assert list(threads_engine.map(pow, [1, 2, 3], [2, 2, 2])) == [1, 4, 9]
    with pytest.raises(ZeroDivisionError):
        list(threads_engine.map(lambda x: 1 // x, [1, 0, 1]))

    async def main() -> list[int]:
        return [x async for x in threads_engine.map(abs, [-1, -2])]

    assert asyncio.run(main()) == [1, 2]


def test_timeouts_only_end_the_waiting(threads_engine: TheusEngine) -> None:
    go = threading.Event()
    with pytest.raises(TaskTimeout, match="cannot be ended"):
        threads_engine.run(lambda: go.wait(30), timeout=0.05)
    go.set()


def test_async_processes_and_exceptions(threads_engine: TheusEngine) -> None:
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    assert threads_engine.run(double, 2) == 4
    assert threads_engine.submit(double, 3).result(30) == 6
    with pytest.raises(KeyError):
        threads_engine.submit({}.__getitem__, 1).result(30)


def test_closing(threads_engine: TheusEngine) -> None:
    started, go = threading.Semaphore(0), threading.Event()

    def wait() -> bool:
        started.release()
        return go.wait(30)

    running = [threads_engine.submit(wait) for _ in range(2)]
    assert all(started.acquire(timeout=30) for _ in running)
    queued = threads_engine.submit(abs, -1)
    threads_engine.close()
    assert queued.cancelled()
    go.set()
    assert all(f.result(30) for f in running)
    with pytest.raises(EngineClosed):
        threads_engine.submit(abs, -1)
