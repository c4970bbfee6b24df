"""How tasks end: by death, timeout, cancelling, exceptions. None of it concerns other tasks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import traceback
from pathlib import Path
from typing import Any

import pytest

import jobs
import jobs_that_fail
from gate import Gate
from polling import until
from processes import alive
from theus import RemoteError, TaskTimeout, TheusEngine, WorkerCrashed


def pids(engine: TheusEngine) -> set[int]:
    """Of the workers; one that is just starting has none yet."""
    return {worker["pid"] for worker in engine.stats()["workers"]} - {0}


# ---- deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "number", "code"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL, None),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), signal.SIGSEGV, None),
        (os.abort, signal.SIGABRT, None),
        (lambda: os._exit(7), 0, 7),
        (lambda: os._exit(0), 0, 0),
    ],
    ids=["SIGKILL", "SIGSEGV", "abort", "exit 7", "exit 0"],
)
def test_a_death_costs_one_task(
    engine: TheusEngine, gate: Gate, end: Any, number: int, code: int | None
) -> None:
    other = engine.submit(jobs.wait_and_give, "kept", reports=gate.reports, gate=gate.path)
    (seen,) = gate.arrived(1)
    doomed = engine.submit(end)
    later = [engine.submit(pow, 2, n) for n in range(20)]
    with pytest.raises(WorkerCrashed) as caught:
        doomed.result(60)
    assert isinstance(caught.value, concurrent.futures.process.BrokenProcessPool)
    assert (caught.value.signal, caught.value.exit_code) == (number, code)
    assert caught.value.pid not in (0, os.getpid(), seen["pid"])
    assert str(caught.value.pid) in str(caught.value)
    assert (signal.Signals(number).name if number else f"{code}") in str(caught.value)
    assert [task.result(60) for task in later] == [2**n for n in range(20)]
    gate.open()
    assert other.result(60) == "kept"
    assert seen["pid"] in pids(engine)
    until(lambda: len(pids(engine)) == 2, "the worker to be replaced")


def test_a_crash_is_retried_as_often_as_asked(engine: TheusEngine, tmp_path: Path) -> None:
    log = tmp_path / "tries"
    assert engine.run(jobs_that_fail.crash_until, str(log), 3, retries=2) == 3
    log.unlink()
    with pytest.raises(WorkerCrashed):
        engine.run(jobs_that_fail.crash_until, str(log), 3, retries=1)
    assert len(log.read_text().split()) == 2


def test_an_exception_is_not_retried(engine: TheusEngine, tmp_path: Path) -> None:
    log = tmp_path / "tries"
    with pytest.raises(ValueError, match="on purpose"):
        engine.run(jobs_that_fail.note_and_raise, str(log), retries=5)
    assert len(log.read_text().split()) == 1


# ---- timeouts ------------------------------------------------------------------------------------


def waited_for(engine: TheusEngine, reports: str) -> None:
    engine.run(jobs_that_fail.compute_for_ever, reports, timeout=0.3)


def awaited(engine: TheusEngine, reports: str) -> None:
    call = engine.options(timeout=0.3).execute(jobs_that_fail.compute_for_ever, reports)
    asyncio.run(asyncio.wait_for(call, 60))


@pytest.mark.parametrize("call", [waited_for, awaited])
def test_a_timeout_ends_its_worker_only(engine: TheusEngine, gate: Gate, call: Any) -> None:
    other = engine.submit(jobs.wait_and_give, "kept", reports=gate.reports, gate=gate.path)
    (seen,) = gate.arrived(1)
    before = until(lambda: len(pids(engine)) == 2 and pids(engine), "two workers")
    with pytest.raises(TaskTimeout) as caught:
        call(engine, gate.reports)
    for base in (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError):
        assert isinstance(caught.value, base)
    assert "0.3" in str(caught.value) or "300" in str(caught.value)
    (ended,) = before - {seen["pid"]}
    until(lambda: not alive(ended), "the worker to be ended")
    gate.open()
    assert other.result(60) == "kept"
    assert seen["pid"] in pids(engine)
    assert engine.run(pow, 2, 3) == 8


def test_waiting_in_the_queue_does_not_count(gate: Gate) -> None:
    with TheusEngine(workers=1) as engine:
        first = engine.submit(jobs.wait_and_give, 1, reports=gate.reports, gate=gate.path)
        gate.arrived(1)
        queued = [engine.submit(pow, 2, n, timeout=0.05) for n in range(3)]
        with pytest.raises(concurrent.futures.TimeoutError):
            queued[0].result(0.3)  # much longer than the timeout, and still in the queue
        gate.open()
        assert [task.result(60) for task in (first, *queued)] == [1, 1, 2, 4]


def test_a_timeout_of_the_functions_own(engine: TheusEngine) -> None:
    assert engine.options(timeout=30).run(lambda timeout: timeout, timeout="mine") == "mine"
    with pytest.raises(TimeoutError, match="of my own") as caught:
        engine.run(jobs_that_fail.raise_timeout, timeout=30)
    assert not isinstance(caught.value, TaskTimeout)


# ---- cancelling ----------------------------------------------------------------------------------


def test_a_running_future_is_cancelled(engine: TheusEngine, gate: Gate) -> None:
    task = engine.submit(jobs_that_fail.compute_for_ever, gate.reports)
    (seen,) = gate.arrived(1)
    assert task.cancel()
    assert task.cancel(), "once more does nothing"
    assert task.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        task.result(60)
    until(lambda: not alive(seen["pid"]), "its worker to be ended")
    assert engine.run(pow, 2, 3) == 8


def test_a_queued_future_is_cancelled(gate: Gate, tmp_path: Path) -> None:
    log = tmp_path / "ran"
    with TheusEngine(workers=1) as engine:
        first = engine.submit(jobs.wait_and_give, 1, reports=gate.reports, gate=gate.path)
        (seen,) = gate.arrived(1)
        queued = [
            engine.submit(jobs_that_fail.note_and_maybe_die, n, str(log), False) for n in range(6)
        ]
        assert all(task.cancel() for task in queued[1:5])
        gate.open()
        assert (first.result(60), queued[0].result(60), queued[5].result(60)) == (1, 0, 5)
        assert all(task.cancelled() for task in queued[1:5])
        assert log.read_text().split() == ["0", "5"]
        assert pids(engine) == {seen["pid"]}, "nobody had to die for it"


def test_a_future_that_has_ended_is_not_cancelled(engine: TheusEngine) -> None:
    task = engine.submit(pow, 2, 3)
    assert task.result(60) == 8
    assert not task.cancel()
    assert task.result() == 8


def test_cancelling_an_await_ends_the_task(engine: TheusEngine, gate: Gate) -> None:
    async def main() -> int:
        awaiting = asyncio.ensure_future(
            engine.execute(jobs_that_fail.compute_for_ever, gate.reports)
        )
        (seen,) = await asyncio.to_thread(gate.arrived, 1)
        awaiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiting
        await asyncio.to_thread(until, lambda: not alive(seen["pid"]), "its worker to be ended")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(engine.execute(jobs_that_fail.sleep_for_ever), 0.2)
        result: int = await engine.execute(pow, 2, 3)
        return result

    assert asyncio.run(main()) == 8
    until(lambda: engine.stats()["tasks"]["running"] == 0, "the task to be ended")


def test_closing_cancels(gate: Gate) -> None:
    engine = TheusEngine(workers=1)
    running = engine.submit(jobs_that_fail.sleep_for_ever, gate.reports)
    queued = engine.submit(pow, 2, 3)
    gate.arrived(1)
    engine.close()
    assert running.cancelled()
    assert queued.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(pow, 2, 3)


def test_shutdown_waits(gate: Gate) -> None:
    engine = TheusEngine(workers=1)
    tasks = [engine.submit(pow, 2, n) for n in range(50)]
    engine.shutdown()
    assert [task.result(0) for task in tasks] == [2**n for n in range(50)]


# ---- exceptions ----------------------------------------------------------------------------------


def test_an_exception_arrives_as_itself(engine: TheusEngine) -> None:
    with pytest.raises(jobs_that_fail.Refused) as caught:
        engine.run(jobs_that_fail.refuse, "too small", 3)
    error = caught.value
    assert (error.args, error.number) == (("too small", 3), 3)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert "in refuse" in text, "the remote traceback is shown"
    assert "raise Refused(reason, number)" in text
    assert "in refuse" in str(error.__cause__)
    assert "theus/worker" not in str(error.__cause__), "only the user's part of it"


def test_the_cause_of_an_exception_is_told(engine: TheusEngine) -> None:
    with pytest.raises(RuntimeError, match="outer") as caught:
        engine.run(jobs_that_fail.raise_from)
    assert "inner" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "process", [jobs_that_fail.leave, jobs_that_fail.interrupt, jobs_that_fail.stop_generator]
)
def test_what_would_end_a_process_ends_a_task(engine: TheusEngine, process: Any) -> None:
    before = until(lambda: p if len(p := pids(engine)) == 2 else None, "the workers")
    with pytest.raises(RemoteError) as caught:
        engine.run(process)
    assert caught.value.type_name == {"leave": "SystemExit", "interrupt": "KeyboardInterrupt"}.get(
        process.__name__, "GeneratorExit"
    )
    assert process.__name__ in caught.value.traceback
    assert engine.run(os.getpid) in before
    assert pids(engine) == before


def test_an_exception_that_is_hard_to_tell(engine: TheusEngine) -> None:
    kinds = [
        (jobs_that_fail.raise_without_text, jobs_that_fail.Mute),
        (jobs_that_fail.raise_deep, RemoteError),
        (jobs_that_fail.raise_large, ValueError),
    ]
    for process, kind in kinds:
        with pytest.raises(kind) as caught:
            engine.run(process)
        told = str(caught.value.__cause__)
        assert process.__name__ in told
        assert kind is RemoteError or kind.__name__ in told
        assert len(told) < 1 << 16
    assert engine.run(pow, 2, 3) == 8


def test_exceptions_of_awaited_and_mapped_calls(engine: TheusEngine) -> None:
    async def main() -> None:
        await engine.execute(jobs_that_fail.refuse, "awaited", 1)

    with pytest.raises(jobs_that_fail.Refused, match="awaited") as caught:
        asyncio.run(main())
    assert "in refuse" in str(caught.value.__cause__)
    with pytest.raises(jobs_that_fail.Refused, match="mapped") as caught:
        list(engine.map(jobs_that_fail.refuse, ["mapped"], [1]))
    assert "in refuse" in str(caught.value.__cause__)


def test_recursion_without_end(engine: TheusEngine) -> None:
    with pytest.raises(RecursionError):
        engine.run(jobs_that_fail.recurse)
    assert engine.run(pow, 2, 3) == 8
