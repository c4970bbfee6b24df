"""System calls of the zygote and of workers fail, one after the other (failing_calls.py).

Whatever fails, and whenever: the task gives its result or a typed error, and the pool serves the
next one, or says why there can be no workers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from failing_calls import EVERY, VARIABLE, Plan
from polling import until
from processes import descendants
from theus import TheusEngine, TheusError, WorkerCrashed

LARGE = 200_000  # values of 8 bytes: more than a frame or an arena takes

Fails = Callable[..., Plan]


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Arranges what fails next, in the engines that are opened from now on."""
    path = tmp_path / "plan"
    monkeypatch.setenv(VARIABLE, str(path))

    def arrange(call: str, number: int, *, nth: int = 1, times: int = 1) -> Plan:
        plan = Plan(call, number, nth, times, str(tmp_path / f"{call} {nth} {number}"))
        plan.write(path)
        return plan

    return arrange


def engine(workers: int = 1) -> TheusEngine:
    return TheusEngine(workers=workers, preload=["numpy", "failing_calls"])


# ---- the zygote ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
@pytest.mark.parametrize("call", ["fork", "pidfd_open"])
def test_a_worker_that_cannot_be_forked_is_forked_later(
    fails: Fails, call: str, number: int
) -> None:
    # The zygote asks for its own pidfd first.
    plan = fails(call, number, nth=1 if call == "fork" else 2)
    with engine() as one:
        assert one.run(pow, 2, 3) == 8
        assert plan.happened() == 1
        # A child that was forked and could not be watched is gone.
        until(lambda: len(descendants(os.getpid())) == 2, "a zygote and its worker, nothing else")


def test_a_worker_that_cannot_be_told_of_at_once_is_told_of_later(fails: Fails) -> None:
    plan = fails("sendmsg", errno.ETOOMANYREFS, times=3, nth=EVERY)
    with engine() as one:
        assert one.run(pow, 2, 3) == 8
        assert plan.happened() == 3


def test_a_zygote_that_cannot_tell_of_a_worker_is_replaced(
    fails: Fails, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = fails("sendmsg", errno.EPERM)
    with engine() as one:
        assert one.run(pow, 2, 3) == 8
        assert plan.happened() == 1
    capfd.readouterr()  # what it says at its end


def test_a_replacement_that_cannot_be_forked_is_forked_later(fails: Fails) -> None:
    plan = fails("fork", errno.EAGAIN, nth=2)
    with engine() as one:
        with pytest.raises(WorkerCrashed):
            one.run(os._exit, 3)
        assert one.run(pow, 2, 3) == 8
        assert plan.happened() == 1


def test_the_others_work_while_one_cannot_be_forked(fails: Fails) -> None:
    plan = fails("fork", errno.EAGAIN, nth=2)
    with engine(workers=2) as two:
        assert two.run(pow, 2, 3) == 8
        until(
            lambda: len([w for w in two.stats()["workers"] if w["state"] == "idle"]) == 2,
            "the second worker",
        )
        assert plan.happened() == 1


def test_where_nothing_can_be_forked_there_is_a_reason(fails: Fails) -> None:
    fails("fork", errno.EAGAIN, nth=EVERY, times=1000)
    with engine() as one:
        with pytest.raises(TheusError, match="cannot fork.*Resource temporarily unavailable"):
            one.run(pow, 2, 3)
        with pytest.raises(TheusError, match="cannot fork"):
            one.submit(pow, 2, 3).result(60)


def test_where_processes_cannot_be_watched_there_is_a_reason(fails: Fails) -> None:
    fails("pidfd_open", errno.ENOSYS)
    with engine() as one, pytest.raises(TheusError, match=r"pidfd_open.*Linux 5\.4"):
        one.run(pow, 2, 3)


# ---- workers -------------------------------------------------------------------------------------


def read(ctx: Any) -> float:
    return float(ctx.heavy["x"].sum())


def steps(one: TheusEngine) -> list[Callable[[], bool]]:
    """Everything that a worker does with the host, each telling whether it came out right."""
    x = np.arange(LARGE, dtype=np.float64)
    text = "a" * LARGE
    return [
        lambda: one.heavy.put("x", x) is not None and one.run(read) == x.sum(),
        lambda: one.run(len, text) == LARGE,
        lambda: np.array_equal(one.run(np.arange, LARGE), np.arange(LARGE)),
        lambda: one.run(bytes, LARGE) == bytes(LARGE),
        lambda: one.run(pow, 2, 3) == 8,
    ]


@pytest.mark.parametrize(
    ("call", "number", "unnoticed"),
    [
        ("send", errno.ENOBUFS, True),
        ("send", errno.ETOOMANYREFS, True),
        ("send", errno.EPERM, False),
        ("recvmsg", errno.EPERM, False),
        ("descriptors", errno.EMFILE, False),
        ("mmap", errno.ENOMEM, False),
    ],
)
def test_each_call_of_a_worker_fails_once(
    fails: Fails, call: str, number: int, unnoticed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    failed = 0
    with engine() as one:
        for nth in range(1, 40):
            plan = fails(call, number, nth=nth)
            errors: list[Exception] = []
            for step in steps(one):
                try:
                    assert step(), plan
                except (TheusError, MemoryError, OSError) as error:
                    errors.append(error)
            fails("nothing", 0)
            assert one.run(pow, 2, 3) == 8, plan
            assert len(errors) <= plan.happened(), (plan, errors)
            assert not (unnoticed and errors), (plan, errors)
            if not plan.happened():
                break
            failed += 1
    assert failed > 1
    capfd.readouterr()  # what a worker says that ends by an error of its own
