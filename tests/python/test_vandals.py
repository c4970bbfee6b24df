"""Tasks that break their own process: it serves on, or costs that task and is replaced."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jobs
import vandals
from polling import until
from processes import alive, descendants
from theus import TheusEngine, WorkerCrashed

CUT_OFF = (
    r"worker \d \(pid \d+\) lost its connection to the host, because something in it closed or "
    r"replaced a descriptor that was not its own, and (was )?ended while it ran {task}\Z"
)
BROKE = r"worker \d \(pid \d+\) broke the protocol \(.+\) and was ended while it ran {task}\Z"


def worker_of(engine: TheusEngine) -> int:
    """The pid of the only worker, once it is there."""

    def look() -> int:
        workers = engine.stats()["workers"]
        return workers[0]["pid"] if workers and workers[0]["state"] == "idle" else 0

    return until(look, "an idle worker")


def assert_serves(engine: TheusEngine, key: str) -> None:
    """All kinds of traffic work: inline and in segments, both ways, arrays, failures, batches."""
    assert engine.submit(pow, 2, 3).result(60) == 8
    large = np.arange(1 << 16)
    assert engine.submit(np.negative, large).result(60).tolist() == (-large).tolist()
    engine.heavy.put(key, large)
    assert engine.submit(jobs.peek, key).result(60)[:3] == [0, 1, 2]
    del engine.heavy[key]
    assert isinstance(engine.submit(pow, 2, "3").exception(60), TypeError)
    assert list(engine.map(abs, [-1, -2])) == [1, 2]


def test_a_worker_survives_what_tasks_do_to_it() -> None:
    with TheusEngine(workers=1) as engine:
        pid = worker_of(engine)
        for number, vandal in enumerate(vandals.SURVIVED):
            try:
                assert engine.submit(vandal).result(60) is None
                assert_serves(engine, f"key {number}")
                assert worker_of(engine) == pid, "it is the same process"
            except Exception as error:
                raise AssertionError(f"after {vandal.__name__}: {error!r}") from error


def test_a_worker_asks_for_its_death_signal_again() -> None:
    """A task took it back, or lost it by changing its user: the next one has it again."""
    with TheusEngine(workers=1) as engine:
        engine.run(vandals.live_on_without_parent)
        assert engine.run(death_signal) == signal.SIGKILL


def death_signal() -> int:
    number = ctypes.c_int()
    assert ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0) == 0
    return number.value


@pytest.mark.parametrize("natively", [False, True])
def test_a_child_outlives_its_worker(natively: bool) -> None:
    """It holds the socket, when Python does not know of it; the death is seen all the same."""
    with TheusEngine(workers=1) as engine:
        child = engine.run(vandals.fork_and_leave, natively)
        try:
            pid = worker_of(engine)
            task = engine.submit(os._exit, 3)
            error = task.exception(60)
            assert isinstance(error, WorkerCrashed)
            assert (error.pid, error.exit_code) == (pid, 3)
            assert_serves(engine, "key")
            assert alive(child), "it is the user's, and not ours to end"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        until(lambda: not alive(child), "the child to be gone")


@pytest.mark.parametrize("vandal", [*vandals.CUT_OFF, *vandals.BROKE], ids=lambda v: v.__name__)
def test_a_task_that_ruins_the_connection_costs_itself(vandal: Callable[[], Any]) -> None:
    with TheusEngine(workers=1) as engine:
        pid = worker_of(engine)
        task = engine.submit(vandal)
        behind = [engine.submit(pow, 2, n) for n in range(4)]
        error = task.exception(60)
        assert isinstance(error, WorkerCrashed)
        pattern = CUT_OFF if vandal in vandals.CUT_OFF else BROKE
        wanted = pattern.format(task=vandal.__name__)
        assert re.match(wanted, str(error)), f"{str(error)!r} is not {wanted!r}"
        assert (error.pid, error.task, error.oom) == (pid, vandal.__name__, False)
        assert [later.result(60) for later in behind] == [1, 2, 4, 8]
        assert_serves(engine, "key")
        assert worker_of(engine) != pid
        until(lambda: len(descendants(os.getpid())) == 2, "the zygote and one worker")
