"""Calls that end well: in order, on any loop and thread, with logs, state and outputs."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs
import jobs_that_fail
import theus
from gate import Gate
from polling import until
from processes import region_of
from theus import StateUpdate, TheusEngine


@pytest.fixture(scope="module")
def engine(shared_engine: TheusEngine) -> TheusEngine:
    return shared_engine


# ---- map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", ["auto", 1, 7])
def test_map_keeps_the_order(engine: TheusEngine, chunksize: Any) -> None:
    results = engine.map(pow, range(200), [2] * 200, chunksize=chunksize)
    assert list(results) == [n**2 for n in range(200)]
    assert list(engine.map(pow, [], [])) == []


def test_map_is_lazy() -> None:
    taken = []

    def endless() -> Iterator[int]:
        n = 0
        while True:
            taken.append(n)
            yield n
            n += 1

    with TheusEngine(workers=2) as engine:
        results = engine.map(abs, endless(), chunksize=2)
        assert taken == [], "nothing is asked for before the first result is"
        assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
        assert len(taken) < 100
        results.close()


def test_the_first_exception_of_a_map_is_raised_and_the_rest_cancelled(
    tmp_path: Path, gate: Gate
) -> None:
    log = tmp_path / "ran"
    with TheusEngine(workers=2) as engine:
        results = engine.map(jobs_that_fail.note_unless, range(1000), [str(log)] * 1000, [5] * 1000)
        assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
        with pytest.raises(jobs_that_fail.Refused, match="five"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
        # A cancelled task counts as ended from then on; its worker may be about to die, or be in
        # the middle of a line. Once each worker has begun something else, that is over too.
        others = [
            engine.submit(jobs.wait_and_give, n, reports=gate.reports, gate=gate.path)
            for n in range(2)
        ]
        gate.arrived(2)
        ran = len(log.read_text().split())
        assert ran < 500
        gate.open()
        assert [other.result() for other in others] == [0, 1]
        assert len(log.read_text().split()) == ran, "some of the rest ran later"


def test_a_map_that_is_dropped_is_cancelled(gate: Gate) -> None:
    with TheusEngine(workers=2) as engine:
        results = engine.map(
            jobs_that_fail.first_then_sleep, range(10), [gate.reports] * 10, chunksize=1
        )
        assert next(results) == 0
        gate.arrived(1)
        del results
        until(lambda: engine.stats()["tasks"]["running"] == 0, "its tasks to be ended")
        assert engine.run(pow, 2, 3) == 8


def test_async_for(engine: TheusEngine) -> None:
    async def main() -> list[int]:
        return [n async for n in engine.map(pow, range(50), [2] * 50)]

    assert asyncio.run(main()) == [n**2 for n in range(50)]


def test_progress_is_shown(engine: TheusEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(engine.map(abs, range(30), progress=True)) == list(range(30))
    assert "30/30" in capsys.readouterr().err


# ---- loops and threads ---------------------------------------------------------------------------


def test_five_hundred_at_once(engine: TheusEngine) -> None:
    async def main() -> Any:
        return await asyncio.gather(*(engine.execute(pow, 2, n) for n in range(500)))

    assert asyncio.run(main()) == [2**n for n in range(500)]
    tasks = [engine.submit(pow, 2, n) for n in range(500)]
    assert [task.result(60) for task in tasks] == [2**n for n in range(500)]


def test_two_loops_in_two_threads(engine: TheusEngine) -> None:
    """Each is told of its own tasks only; on a common queue they would take the other's."""
    results: dict[int, Any] = {}

    async def main(base: int) -> Any:
        rounds = []
        for _ in range(20):
            rounds.append(await asyncio.gather(*(engine.execute(pow, base, n) for n in range(10))))
        return rounds

    def run(base: int) -> None:
        results[base] = asyncio.run(main(base))

    threads = [threading.Thread(target=run, args=(base,), daemon=True) for base in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert results == {base: [[base**n for n in range(10)]] * 20 for base in (2, 3)}


def test_one_loop_after_the_other(engine: TheusEngine) -> None:
    async def main() -> Any:
        return await engine.execute(pow, 2, 5)

    assert [asyncio.run(main()) for _ in range(10)] == [32] * 10


def test_run_under_a_running_loop(engine: TheusEngine) -> None:
    async def main() -> Any:
        return engine.run(pow, 2, 3), list(engine.map(abs, [-1, -2])), await engine.execute(abs, -3)

    assert asyncio.run(main()) == (8, [1, 2], 3)


def test_futures_work_with_the_standard_library(engine: TheusEngine) -> None:
    async def main() -> Any:
        return await asyncio.wrap_future(engine.submit(pow, 2, 4))

    assert asyncio.run(main()) == 16
    called = threading.Event()
    task = engine.submit(pow, 2, 5)
    task.add_done_callback(lambda _: called.set())
    assert called.wait(60)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_what_a_callback_raises_costs_no_other_result(
    engine: TheusEngine,
    gate: Gate,
    kind: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in any thread: SystemExit says nothing, others are told; the next future is resolved."""
    told: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: told.append(what.exc_type))

    def leave(_: object) -> None:
        raise kind

    future = engine.submit(jobs.wait_at, gate.path)
    future.add_done_callback(leave)  # while the task runs, or this thread would call it
    gate.open()
    future.result(30)
    assert engine.submit(pow, 2, 3).result(30) == 8
    if kind is ValueError:  # concurrent.futures logs it
        assert "exception calling callback" in caplog.text
    else:
        assert told == [kind]


def test_from_many_threads(engine: TheusEngine) -> None:
    results: list[int] = []

    def call(n: int) -> None:
        results.append(sum(engine.run(pow, n, 2) for _ in range(10)))

    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [10 * n * n for n in range(8)]


# ---- what comes out beside the result ------------------------------------------------------------


def test_prints_of_workers_are_seen(engine: TheusEngine, capfd: pytest.CaptureFixture[str]) -> None:
    with TheusEngine(workers=1) as fresh:  # one that was started while the output is captured
        fresh.run(jobs.print_both, "hello")
    out, err = capfd.readouterr()
    assert (out, err) == ("out: hello\n", "err: hello\n")


def test_log_records_reach_the_host(engine: TheusEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        engine.run(jobs.log, "a word", 7)
        until(lambda: len(caplog.records) >= 2, "the records")
    first, second = caplog.records[:2]
    assert (first.levelno, first.getMessage()) == (logging.WARNING, "a word and 7")
    assert "ZeroDivisionError" in second.getMessage()
    assert "log" in first.name
    assert "not shown" not in caplog.text


# ---- the state, as tasks see it ------------------------------------------------------------------


def test_nested_state_in_a_task() -> None:
    domain = {"rate": 0.5, "deep": {"a": [1, {"b": None}], "t": (1, 2)}, "when": {3: "three"}}
    with TheusEngine({"domain": domain, "other": 1}, workers=1) as engine:
        seen = engine.run(jobs.look_around, rate=2.0)
        assert seen["rate"] == 2.0, "an argument wins"
        assert seen["stored rate"] == 0.5
        assert seen["deep"] == domain["deep"]
        assert seen["deep.a.1.b"] is None
        assert seen["when"] == {3: "three"}
        assert seen["other"] == 1
        assert seen["version"] == engine.state.version
        assert seen["refused"] == ["TypeError", "ContractViolationError"]


def test_outputs_are_committed(engine: TheusEngine) -> None:
    version = engine.state.version
    assert engine.run(jobs.one_output) == {"rows": 3}
    assert engine.state.data["report"] == {"rows": 3}
    assert engine.run(jobs.two_outputs) == (1, None)
    assert engine.state.data["first"] == 1
    assert "second" not in engine.state.data
    assert engine.state.version == version + 2
    assert engine.run(jobs.nothing) is None
    assert engine.state.version == version + 2, "no outputs, no new version"


@pytest.mark.parametrize("process", [jobs.heavy_output, jobs.heavy_update])
def test_a_heavy_output_is_published_without_a_copy(engine: TheusEngine, process: Any) -> None:
    result = engine.run(process, 300_000)
    view = engine.heavy["made"]
    assert theus.is_shared(view)
    np.testing.assert_array_equal(view, np.arange(300_000.0))
    array = result.heavy["made"] if isinstance(result, StateUpdate) else result
    assert array.__array_interface__["data"][1], "read-only"
    # One memory file: what the worker filled is what everybody reads.
    places = [region_of("self", jobs.address(a)) for a in (array, view)]
    assert all(place.is_shared_memory for place in places)
    assert all(place.amounts["Anonymous"] == 0 for place in places)
    assert inode(places[0].start) == inode(places[1].start)
    seen = engine.run(jobs.read_all, "made")
    worker = region_of(seen["pid"], seen["address"])
    assert inode(worker.start, seen["pid"]) == inode(places[0].start)
    assert seen["checksum"] == jobs.checksum(view)
    del result, view, array, engine.heavy["made"]


def inode(start: int, pid: int | str = "self") -> str:
    """Which file is mapped at an address, by the kernel's number for it."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.startswith(f"{start:x}-"):
            return line.split()[4]
    raise AssertionError(f"nothing is mapped at {start:#x}")


def test_part_of_a_heavy_output(engine: TheusEngine) -> None:
    part = engine.run(jobs.part_of_output, 300_000)
    assert part.tolist() == [10.0, 11.0, 12.0]


# ---- code ----------------------------------------------------------------------------------------


def test_workers_never_load_the_library(engine: TheusEngine) -> None:
    assert "theus" in engine.run(jobs.modules)
    for worker in engine.stats()["workers"]:
        assert "libtheus" not in Path(f"/proc/{worker['pid']}/maps").read_text()
    assert "libtheus" in Path("/proc/self/maps").read_text()


def test_a_reloaded_module_runs_its_new_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "changing_module.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module.write_text("NUMBER = 1\ndef answer():\n    return NUMBER, 'old'\n")
    changing = importlib.import_module("changing_module")
    try:
        with TheusEngine(workers=1) as engine:
            assert engine.run(changing.answer) == (1, "old")
            module.write_text("NUMBER = 2\ndef answer():\n    return NUMBER, 'newer'\n")
            changing = importlib.reload(changing)
            assert changing.answer() == (2, "newer")
            assert engine.run(changing.answer) == (2, "newer")
            changing.NUMBER = 3
            assert engine.run(changing.answer) == (3, "newer")
    finally:
        del sys.modules["changing_module"]


def change_globals(directory: str) -> tuple[int, str | None]:
    """Change what a process has once: how often it was done here, and what it has made of it."""
    jobs.kept.append("by a task")
    os.environ["CHANGED"] = f"{os.environ.get('CHANGED', '')}x"
    os.chdir(directory)
    return len(jobs.kept), os.environ["CHANGED"]


def test_a_task_changes_its_workers_globals_only(tmp_path: Path) -> None:
    before = os.getcwd()
    assert before != str(tmp_path)
    with TheusEngine(workers=1) as engine:  # of its own: its worker stays as the task leaves it
        assert engine.run(change_globals, str(tmp_path)) == (1, "x")
        assert engine.run(change_globals, str(tmp_path)) == (2, "xx")
        assert engine.run(os.getcwd) == str(tmp_path)
    assert jobs.kept == []
    assert "CHANGED" not in os.environ
    assert os.getcwd() == before


# ---- without processes ---------------------------------------------------------------------------


def everything() -> list[Any]:
    """Results of calls of many kinds, in a form that can be compared."""
    found: list[Any] = []
    with TheusEngine({"domain": {"rate": 0.5}, "step": 1}, workers=2, seed=7) as engine:
        engine.heavy.put("x", np.arange(1000.0))
        found.append(engine.run(pow, 2, 3))
        found.append(engine.run(jobs.peek, "x")[:3])
        found.append(list(engine.map(jobs.draw, range(20))))
        found.append(asyncio.run(executed(engine)))
        found.append(engine.submit(lambda a, b: a + b, 1, b=2).result(60))
        found.append(engine.run(jobs.one_output))
        found.append(engine.run(jobs.heavy_output, 1000).sum())
        found.append((engine.state.to_dict(), engine.heavy["made"].sum(), engine.state.version))
        found.append(engine.run(jobs.add_to_cow, "x"))
        for mistake in (
            lambda: engine.run(jobs_that_fail.refuse, "text", 3),
            lambda: engine.run(jobs_that_fail.evaluate, "ctx.inptu"),
            lambda: engine.run(jobs_that_fail.evaluate, "ctx.heavy['nobody']"),
            lambda: engine.run(jobs_that_fail.apply_to_heavy, jobs_that_fail.clear, "x"),
            lambda: engine.run("nobody"),
            lambda: list(engine.map(jobs_that_fail.refuse, ["a", "b"], [1, 2])),
        ):
            with pytest.raises(Exception) as caught:  # noqa: PT011  (compared below)
                mistake()
            found.append((type(caught.value), str(caught.value)))
        caught.value.__traceback__ = None
    return found


async def executed(engine: TheusEngine) -> Any:
    by_name = engine.execute("peek", "x")
    calls = [engine.execute(jobs.draw) for _ in range(5)]
    return await by_name, await asyncio.gather(*calls), await engine.execute(jobs.in_host)


def test_threads_give_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = everything()
    monkeypatch.setenv("THEUS_USE_PROCESSES", "0")
    threads = everything()
    for one, other in zip(processes, threads, strict=True):
        assert one == other
