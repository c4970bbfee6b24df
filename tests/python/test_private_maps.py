"""Private, writable maps count in the budget: each of their pages may become memory of its own."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

from conftest import EngineFactory
from polling import until
from theus import HeapFull

LENGTH = 1 << 18
NBYTES = LENGTH * 8

kept: list[Any] = []  # in a worker


def keep_a_copy(ctx: Any) -> float:
    mine = ctx.heavy.cow("x")
    mine[0] = len(kept)
    kept.append(mine)
    return float(mine[0] + mine[-1])


def forget_the_copies() -> None:
    kept.clear()


def test_copies_on_write_count_until_they_are_gone(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1, heap=5 * NBYTES)
    engine.heavy.put("x", np.ones(LENGTH))

    def in_use() -> int:
        return int(engine.stats()["memory"]["in_use"])

    until(lambda: in_use() == NBYTES, "the array alone")
    for number in range(4):
        assert engine.run(keep_a_copy) == number + 1
        assert in_use() == (number + 2) * NBYTES
    with pytest.raises(HeapFull) as caught:
        engine.run(keep_a_copy)
    assert caught.value.asked == NBYTES
    assert "private copy" in str(caught.value)
    assert engine.heavy["x"][0] == 1
    engine.run(forget_the_copies)
    until(lambda: in_use() == NBYTES, "the copies to leave the budget")
    assert engine.run(keep_a_copy) == 1


def test_a_dead_worker_keeps_nothing(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1, heap=5 * NBYTES)
    engine.heavy.put("x", np.ones(LENGTH))
    engine.run(keep_a_copy)
    pid = engine.stats()["workers"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.stats()["memory"]["in_use"] == NBYTES, "the copy to go with its worker")


def test_small_arrays_are_copied(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    for key in ("x", "y"):
        engine.heavy.put(key, np.ones(10))
    before = engine.stats()["memory"]["in_use"]
    assert engine.run(keep_a_copy) == 1
    assert engine.stats()["memory"]["in_use"] <= before
    assert engine.heavy["x"][0] == 1
