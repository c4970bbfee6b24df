"""Running processes: awaited, blocking and as futures, in the pool and in the host."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import sys
import threading
import weakref
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs
import theus
from conftest import EngineFactory
from gate import Gate
from polling import until
from theus import (
    LargeArgumentWarning,
    TaskTimeout,
    TheusEngine,
    UnknownProcess,
    WorkerCrashed,
    process,
)

HOUR = 3600.0


@process(parallel=True)
def add_inputs(ctx: Any, a: int, b: int = 10) -> dict[str, Any]:
    return {"sum": a + b, "inputs": dict(ctx.input), "pid": os.getpid()}


@process
def in_the_host(ctx: Any, a: int = 0) -> tuple[int, int]:
    return a + ctx.input.get("a", 0), os.getpid()


@process
async def async_in_the_host(ctx: Any, a: int) -> tuple[int, int]:
    await asyncio.sleep(0)
    return a, threading.get_ident()


def crash(ctx: Any, marker: str = "") -> str:
    if marker and Path(marker).exists():
        return "second time"
    if marker:
        Path(marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


class TwoArguments(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def raise_it(kind: str) -> None:
    if kind == "key":
        raise KeyError("missing")
    if kind == "two":
        raise TwoArguments(1, 2)
    if kind == "exit":
        raise SystemExit(3)


def test_execute_runs_in_the_pool(engine: TheusEngine) -> None:
    async def main() -> None:
        result = await engine.execute(add_inputs, a=1, extra="x")
        assert result["sum"] == 11
        assert result["inputs"] == {"a": 1, "extra": "x"}
        assert result["pid"] != os.getpid()
        assert (await engine.execute("add_inputs", 1, b=2))["sum"] == 3
        results = await asyncio.gather(*(engine.execute(pow, i, 2) for i in range(50)))
        assert results == [i**2 for i in range(50)]

    asyncio.run(main())


def test_other_processes_run_in_the_host(engine: TheusEngine) -> None:
    async def main() -> None:
        assert await engine.execute(in_the_host, a=2) == (4, os.getpid())
        assert await engine.execute(async_in_the_host, a=2) == (2, threading.get_ident())
        assert engine.execute_parallel("in_the_host", a=2)[1] != os.getpid()
        assert engine.run(async_in_the_host, a=3)[0] == 3, "also under a running loop"

    asyncio.run(main())
    assert engine.run(in_the_host, a=2) == (4, os.getpid())
    assert engine.run(async_in_the_host, a=2) == (2, threading.get_ident())
    assert engine.submit(in_the_host, a=1).result(30) == (2, os.getpid())


def test_run_and_submit_take_any_callable(engine: TheusEngine) -> None:
    assert engine.run(pow, 2, 5) == 32
    assert engine.run(lambda *a, **k: (a, k), 1, x=2) == ((1,), {"x": 2})
    futures = [engine.submit(pow, 2, i) for i in range(20)]
    assert all(isinstance(f, concurrent.futures.Future) for f in futures)
    done, _ = concurrent.futures.wait(futures, timeout=60)
    assert len(done) == 20
    assert [f.result() for f in futures] == [2**i for i in range(20)]


def test_run_works_under_a_running_loop(engine: TheusEngine) -> None:
    async def main() -> int:
        return engine.run(pow, 2, 3) + sum(engine.map(abs, [-1, -2]))

    assert asyncio.run(main()) == 11


def test_several_loops_at_once(engine: TheusEngine) -> None:
    results: list[int] = []

    def work() -> None:
        async def main() -> None:
            results.extend(await asyncio.gather(*(engine.execute(pow, i, 1) for i in range(20))))

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == sorted(list(range(20)) * 3)


def test_exceptions_arrive_as_themselves(engine: TheusEngine) -> None:
    with pytest.raises(KeyError, match="missing") as caught:
        engine.run(raise_it, "key")
    cause = caught.value.__cause__
    assert isinstance(cause, theus.errors.RemoteTraceback)
    assert "in raise_it" in str(cause)
    with pytest.raises(theus.RemoteError, match="SystemExit: 3"):
        engine.run(raise_it, "exit")
    with pytest.raises(theus.RemoteError, match=r"^SystemExit \(raised in a worker"):
        engine.run(sys.exit)
    with pytest.raises((TwoArguments, theus.RemoteError), match="1 and 2") as odd:
        engine.run(raise_it, "two")
    assert "in raise_it" in str(odd.value.__cause__)
    assert engine.run(pow, 2, 3) == 8, "the pool is untouched"


def test_results_that_cannot_be_sent_fail_their_own_task(engine: TheusEngine) -> None:
    with pytest.raises(Exception, match="lock"):
        engine.run(lambda: threading.Lock())
    assert engine.run(pow, 2, 3) == 8


def test_a_crash_ends_one_task(engine: TheusEngine, tmp_path: Path) -> None:
    with pytest.raises(WorkerCrashed) as caught:
        engine.run(crash)
    assert isinstance(caught.value, BrokenProcessPool)
    assert caught.value.signal == signal.SIGKILL
    assert caught.value.pid > 0
    assert "SIGKILL while it ran crash" in str(caught.value)
    assert engine.run(pow, 2, 3) == 8
    assert engine.run(crash, str(tmp_path / "marker"), retries=1) == "second time"


def test_timeouts_of_host_processes(engine: TheusEngine, tmp_path: Path) -> None:
    soon = tmp_path / "soon"

    @process
    def on_a_thread(ctx: Any) -> None:
        jobs.wait_for_file(str(soon))

    @process
    async def on_the_loop(ctx: Any) -> None:
        await asyncio.sleep(HOUR)

    with pytest.raises(TaskTimeout, match="cannot be ended"):
        engine.run(on_a_thread, timeout=0.05)

    async def main() -> None:
        with pytest.raises(TaskTimeout, match="cannot be ended"):
            await engine.execute(on_a_thread, timeout=0.05)
        with pytest.raises(TaskTimeout, match="was cancelled"):
            await engine.execute(on_the_loop, timeout=0.05)

    asyncio.run(main())
    soon.touch()


def test_cancelling_the_await_ends_the_task(engine: TheusEngine, tmp_path: Path) -> None:
    started = tmp_path / "started"

    def begin(path: str) -> None:
        Path(path).touch()
        jobs.wait_for_file(path + ".never")

    async def main() -> None:
        task = asyncio.ensure_future(engine.execute(begin, str(started)))
        while not started.exists():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    engine.shutdown()  # returns: nothing runs any more


def fail_in_the_host(_: Any, text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("fn", [int, process(fail_in_the_host)])
def test_a_failure_that_was_seen_is_no_garbage(engine: TheusEngine, fn: Any) -> None:
    # What a task raised keeps frames, and they kept the future that kept what was raised.
    gc.disable()
    try:
        future = engine.submit(fn, "as asked")
        gone = weakref.ref(future)
        with pytest.raises(ValueError, match="as asked"):
            future.result()
        assert isinstance(future.exception(), ValueError)
        del future
        until(lambda: gone() is None, "the future to go without the garbage collector")
    finally:
        gc.enable()


def test_cancelling_a_future_ends_queued_and_running_tasks(
    make_engine: EngineFactory, tmp_path: Path
) -> None:
    engine = make_engine(workers=1)
    never = str(tmp_path / "never")
    running, queued = (
        engine.submit(jobs.wait_for_file, never),
        engine.submit(jobs.wait_for_file, never),
    )
    assert queued.cancel()
    assert running.cancel()
    assert running.cancel(), "once more is fine"
    for future in (running, queued):
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(0)
    done, _ = concurrent.futures.wait([running, queued], timeout=30)
    assert len(done) == 2
    assert engine.run(pow, 2, 3) == 8
    finished = engine.submit(pow, 2, 3)
    finished.result(30)
    assert not finished.cancel()


def test_names(engine: TheusEngine) -> None:
    @engine.register
    def my_job(ctx: Any) -> str:
        return "mine"

    assert engine.run("my_job") == "mine"
    engine.register(lambda: "renamed", "other")
    assert engine.run("other") == "renamed"
    with pytest.raises(UnknownProcess, match="Did you mean 'my_job'"):
        engine.run("my_jop")
    with pytest.raises(TypeError, match="function or the name"):
        engine.run(3)  # type: ignore[arg-type]
    engine.register(pow, "my_job")
    assert engine.stats()["collisions"] == ["my_job"]


def test_options_leave_all_keywords_to_the_function(engine: TheusEngine) -> None:
    def show(ctx: Any, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    view = engine.options(timeout=30)
    assert view.run(show, timeout="mine", retries=2) == {"timeout": "mine", "retries": 2}
    assert view.submit(show, timeout=1).result(30) == {"timeout": 1}
    assert view.options(retries=1).run(show, a=1) == {"a": 1}
    assert view.state.version == 0
    with pytest.raises(ValueError, match="timeout"):
        engine.run(show, timeout=0)
    with pytest.raises(ValueError, match="retries"):
        engine.run(show, retries=-1)
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None, not '3'"):
        engine.run(show, timeout="3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="retries must be a whole number, not '2'"):
        engine.run(show, retries="2")  # type: ignore[arg-type]


def test_a_parameter_that_shadows_an_option_is_refused(engine: TheusEngine) -> None:
    def fetch(url: str, timeout: float) -> tuple[str, float]:
        return url, timeout

    with pytest.raises(TypeError, match=r"engine\.options\(timeout"):
        engine.register(fetch)
    with pytest.raises(TypeError, match=r"engine\.options\(timeout"):
        engine.run(fetch, "u", timeout=1.0)
    assert engine.options(timeout=30).run(fetch, "u", timeout=1.5) == ("u", 1.5)


def test_arrays_as_arguments_and_results_are_writable(engine: TheusEngine) -> None:
    def change(small: Any, large: Any) -> Any:
        small += 1
        large += 1
        return small, large

    small, large = np.zeros(3), np.zeros(1 << 18)
    with pytest.warns(LargeArgumentWarning, match="engine.heavy"):
        got_small, got_large = engine.run(change, small, large)
    assert not small.any()
    assert not large.any()
    got_small += 1
    got_large += 1
    assert got_small.tolist() == [2] * 3
    assert (got_large == 2).all()


def test_shared_arrays_travel_as_references(engine: TheusEngine) -> None:
    array = engine.heavy.put("x", np.arange(1 << 18, dtype=float))
    assert engine.run(lambda a: float(a.sum()), array[1:4]) == 6
    part = engine.run(lambda ctx: ctx.heavy["x"][2:4])
    assert theus.is_shared(part)
    assert part.tolist() == [2, 3]
    assert engine.run(lambda: float(array[5])) == 5, "captured"


@pytest.mark.parametrize("length", [10, 1 << 18], ids=["in an arena", "in a segment of its own"])
def test_every_worker_gets_a_captured_array(
    make_engine: EngineFactory, tmp_path: Path, length: int
) -> None:
    engine = make_engine(workers=3)
    array = engine.heavy.put("x", np.arange(length, dtype=float))

    def captures(reports: str, gate: str) -> float:
        return jobs.wait_and_give(float(array[5]), reports, gate)

    with Gate(tmp_path) as gate:
        sums = [engine.submit(captures, gate.reports, gate.path) for _ in range(3)]
        pids = {report["pid"] for report in gate.arrived(3)}
        gate.open()
        assert [future.result() for future in sums] == [5.0] * 3
    assert pids == {worker["pid"] for worker in engine.stats()["workers"]}


@pytest.mark.parametrize("length", [10, 1 << 18], ids=["in an arena", "in a segment of its own"])
def test_a_captured_array_lives_until_its_task_has_ended(
    make_engine: EngineFactory, tmp_path: Path, length: int
) -> None:
    engine = make_engine(workers=1)
    engine.heavy.put("x", np.arange(length, dtype=float))

    def submit_and_forget() -> Any:
        array = engine.heavy["x"]
        return engine.submit(lambda: float(array[5]))

    with Gate(tmp_path) as gate:
        first = engine.submit(jobs.wait_and_give, 1, gate.reports, gate.path)
        gate.arrived(1)
        waits = submit_and_forget()
        for n in range(100):  # the old one is gone, and its memory would be used again
            engine.heavy.put("x", np.full(length, -float(n)))
        gate.open()
        assert (first.result(), waits.result()) == (1, 5.0)


def test_a_key_means_the_tasks_version_whatever_the_input_refers_to(engine: TheusEngine) -> None:
    engine.heavy.put("x", [1.0])
    old = engine.heavy["x"]
    engine.heavy.put("x", [2.0])
    for _ in range(3):
        assert engine.run(lambda ctx: (float(old[0]), float(ctx.heavy["x"][0]))) == (1.0, 2.0)
        assert engine.run(lambda ctx, a: (float(a[0]), float(ctx.heavy["x"][0])), old) == (1.0, 2.0)
    del engine.heavy["x"]
    assert engine.run(lambda ctx, a: (float(a[0]), "x" in ctx.heavy), old) == (1.0, False)


def test_a_captured_array_of_another_engine(make_engine: EngineFactory) -> None:
    engine, other = make_engine(workers=1), make_engine(workers=1)
    array = other.heavy.put("x", np.arange(10.0))
    with pytest.raises(ValueError, match="captures a shared array of another engine"):
        engine.run(lambda: float(array[5]))
    assert other.run(lambda: float(array[5])) == 5


def test_a_large_result_outlives_the_engine(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    result = engine.run(np.ones, 1 << 20)
    engine.close()
    assert result.sum() == 1 << 20
