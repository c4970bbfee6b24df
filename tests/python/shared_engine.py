"""One engine for the tests of a module that leave its workers alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

import leaks
from polling import until
from theus import TheusEngine


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[TheusEngine]:
    """An engine with two workers, which all tests of a module use."""
    before = leaks.holdings()
    engine = TheusEngine(workers=2)
    engine.submit(pow, 1, 1).result(60)  # what comes with the first task is there from now on
    until(lambda: [w["state"] for w in engine.stats()["workers"]] == ["idle"] * 2, "two workers")
    yield engine
    engine.close()
    left = leaks.left_over(before)
    assert not left, f"the engine left behind: {left}"


@contextlib.contextmanager
def pool_untouched(engine: TheusEngine) -> Iterator[None]:
    """The workers are the same afterwards, and serve the next task."""
    before = {worker["pid"] for worker in engine.stats()["workers"]}
    assert len(before) == 2
    yield
    assert engine.run(os.getpid) in before
    assert {worker["pid"] for worker in engine.stats()["workers"]} == before
