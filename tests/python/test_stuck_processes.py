"""Workers that never come back, stopped or in a loop in C with the GIL held, and a stopped zygote.

Timeouts and cancellation reach them, and they end with their host.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import jobs
import jobs_that_fail
from gate import Gate
from polling import until
from processes import alive, descendants, state
from programs import started
from theus import TaskTimeout, TheusEngine, WorkerCrashed

STUCK = [jobs_that_fail.loop_in_c, jobs_that_fail.stop_itself]

HOST = """
import collections, itertools, os, signal
from theus import TheusEngine

def loop_in_c():
    print("stuck", flush=True)
    collections.deque(itertools.repeat(0), maxlen=0)

def stop_itself():
    print("stuck", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

engine = TheusEngine(workers=2)
tasks = [engine.submit({function}) for _ in range(2)]
signal.pause()
"""


@pytest.mark.parametrize("stuck", STUCK, ids=lambda stuck: stuck.__name__)
@pytest.mark.parametrize("ending", ["timeout", "cancel"])
def test_a_stuck_task_is_ended_and_no_other(
    gate: Gate, tmp_path: Path, stuck: Callable[..., Any], ending: str
) -> None:
    reports = str(tmp_path / "stuck")
    with TheusEngine(workers=2) as engine:
        other = engine.submit(jobs.wait_and_give, "kept", gate.reports, gate.path)
        (kept,) = gate.arrived(1)
        limited = engine.options(timeout=1.0 if ending == "timeout" else None)
        task = limited.submit(stuck, reports)
        (found,) = until(lambda: jobs.reported(reports), "the task to run")
        if ending == "cancel":
            assert task.cancel()
            with pytest.raises(CancelledError):
                task.result(60)
        else:
            text = (
                rf"{stuck.__name__} ran longer than its timeout of 1s; its worker \(pid {found}\)"
            )
            with pytest.raises(TaskTimeout, match=text):
                task.result(60)
        until(lambda: not alive(found), "the stuck worker to be gone")
        assert engine.submit(pow, 2, 3).result(60) == 8
        assert not other.done()
        gate.open()
        assert other.result(60) == "kept"
        pids = {worker["pid"] for worker in engine.stats()["workers"]}
        assert kept["pid"] in pids
        assert found not in pids


@pytest.mark.parametrize("function", ["loop_in_c", "stop_itself"])
def test_stuck_workers_end_with_their_host(tmp_path: Path, function: str) -> None:
    with started(["-c", HOST.format(function=function)], cwd=tmp_path) as program:
        assert [program.line(), program.line()] == ["stuck", "stuck"]
        assert len(descendants(program.pid)) == 3
        program.process.kill()
        program.process.wait(60)
        program.gone()
        assert program.process.stderr is not None
        assert program.process.stderr.read() == ""


def test_a_stopped_zygote_is_replaced_with_its_workers(gate: Gate) -> None:
    """It reports no death; the end of a worker's stream is known, and five seconds are given."""
    with TheusEngine(workers=2) as engine:
        tasks = [engine.submit(jobs_that_fail.sleep_for_ever, gate.reports) for _ in range(2)]
        workers = {report["pid"] for report in gate.arrived(2)}
        queued = engine.submit(pow, 2, 3)
        (zygote,) = (pid for pid in descendants(os.getpid()) if workers <= set(descendants(pid)))
        os.kill(zygote, signal.SIGSTOP)
        until(lambda: state(zygote) == "T", "the zygote to be stopped")
        os.kill(min(workers), signal.SIGKILL)
        for task in tasks:
            error = task.exception(60)
            assert isinstance(error, WorkerCrashed)
            assert "was lost with its zygote (zygote lost)" in str(error)
            assert (error.signal, error.exit_code, error.oom) == (0, None, False)
            assert error.pid in workers
            assert error.task == "sleep_for_ever"
        assert queued.result(60) == 8, "a task that had not begun is not lost"
        until(lambda: not any(map(alive, [zygote, *workers])), "the old processes to be gone")
