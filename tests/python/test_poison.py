"""Functions that kill every worker they are given to keep nobody else from being served."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import jobs
import jobs_that_fail
from gate import Gate
from polling import until
from theus import TheusEngine, WorkerCrashed

CRASHES = 200


def test_hundreds_of_crashes_do_not_break_the_pool(tmp_path: Path) -> None:
    log = tmp_path / "tries"
    with TheusEngine(workers=2) as engine:
        poison, innocent = [], []
        for number in range(CRASHES):
            poison.append(engine.submit(os._exit, 1 + number % 100))
            innocent.append(engine.submit(pow, 2, number))
        stubborn = engine.options(retries=10).submit(jobs_that_fail.crash_until, str(log), 1 << 30)
        assert [task.result(300) for task in innocent] == [2**n for n in range(CRASHES)]
        for number, task in enumerate(poison):
            error = task.exception(300)
            assert isinstance(error, WorkerCrashed)
            assert error.exit_code == 1 + number % 100
            assert error.task == "_exit"
        with pytest.raises(WorkerCrashed, match=r"SIGKILL while it ran crash_until"):
            stubborn.result(300)
        assert len(log.read_text().split()) == 11, "ten times more than once"
        assert [engine.run(pow, 2, n) for n in range(8)] == [2**n for n in range(8)]
        counts = engine.stats()["tasks"]
        assert counts["failed"] == CRASHES + 1
        assert counts["done"] == CRASHES + 8


def test_a_task_that_is_tried_again_waits_behind_the_others(tmp_path: Path) -> None:
    log = tmp_path / "tries"
    ends: list[str] = []
    with TheusEngine(workers=1) as engine, Gate(tmp_path) as gate:
        first = engine.submit(jobs.wait_and_give, 1, gate.reports, gate.path)
        gate.arrived(1)  # so that all others are in the queue before any of them has begun
        stubborn = engine.options(retries=3).submit(jobs_that_fail.crash_until, str(log), 1 << 30)
        stubborn.add_done_callback(lambda _: ends.append("stubborn"))
        for number in range(10):
            other = engine.submit(pow, 2, number)
            other.add_done_callback(lambda _: ends.append("other"))
        gate.open()
        assert first.result(60) == 1
        # Not until the futures are done: callbacks run after that, on another thread.
        until(lambda: len(ends) == 11, "all tasks to end", 60)
        assert ends == ["other"] * 10 + ["stubborn"]
        assert isinstance(stubborn.exception(0), WorkerCrashed)
        assert len(log.read_text().split()) == 4, "three times more than once"
