"""What a process uses of its module and writes there: warnings, and how to say that it is meant."""

from __future__ import annotations

import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from theus import (
    LargeArgumentWarning,
    StatelessnessError,
    StatelessnessWarning,
    TheusEngine,
    process,
)
from theus.functions import record_of

SOURCE = """
import threading
import numpy as np

table = np.ones(1 << 18)
small = np.ones(10)
lock = threading.Lock()
count = 0
cache = None


def uses_table():
    return table.sum() + small.sum()


def uses_table_knowingly():
    return table.sum()  # theus: allow


def uses_lock():
    with lock:
        return 1


def counts():
    global count
    count += 1
    return count


def counts_inside():
    def inner():
        global count
        count = 5
    inner()


def forgets():
    global cache
    del cache


def caches():
    global cache
    if cache is None:
        cache = 5  # theus: allow  (one for each worker)
    return cache


def fine(x):
    local = x
    local += len(__name__)
    return local
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    (tmp_path / "module_with_state.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import module_with_state  # type: ignore[import-not-found]

    loaded: ModuleType = module_with_state
    yield loaded
    del sys.modules["module_with_state"]


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        (
            "uses_table",
            LargeArgumentWarning,
            r"uses_table uses module_with_state\.table, an array of 2,097,152 bytes, of which each",
        ),
        ("uses_lock", StatelessnessWarning, r"uses_lock uses module_with_state\.lock, a _thread\."),
        (
            "counts",
            StatelessnessWarning,
            r"counts writes the global count \(line 27\): each worker",
        ),
        ("counts_inside", StatelessnessWarning, r"writes the global count \(line 34\)"),
        ("forgets", StatelessnessWarning, r"forgets writes the global cache"),
    ],
)
def test_what_is_not_what_it_seems(module: Any, name: str, kind: type[Warning], text: str) -> None:
    with pytest.warns(kind, match=text) as seen:
        record_of(getattr(module, name))
    assert len(seen) == 1
    assert seen[0].filename == __file__, "it points to where the function is sent"


@pytest.mark.parametrize("name", ["uses_table_knowingly", "caches", "fine"])
def test_what_is_meant_or_harmless_is_silent(module: Any, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record_of(getattr(module, name))


def test_functions_that_travel_by_value_write_no_globals_either() -> None:
    def writes() -> None:
        global WRITTEN
        WRITTEN = 5

    with pytest.warns(StatelessnessWarning, match=r"writes writes the global WRITTEN"):
        record_of(writes)


WRITTEN = 0


def test_it_is_said_once(engine: TheusEngine, module: Any) -> None:
    with pytest.warns(StatelessnessWarning):
        engine.run(module.counts)
    engine.run(module.counts)  # a warning would be an error


# ---- at register ---------------------------------------------------------------------------------


def test_register_refuses_what_cannot_be_sent(engine: TheusEngine) -> None:
    lock = threading.Lock()

    @process(parallel=True)
    def captures(ctx: Any) -> bool:
        return lock.locked()

    @process(parallel=True)
    def by_default(ctx: Any, guard: Any = lock) -> bool:
        return bool(guard.locked())

    @process
    def in_the_host(ctx: Any) -> bool:
        return lock.locked()

    with pytest.raises(StatelessnessError, match=r"captures\.closure\['lock'\] is a _thread\.lock"):
        engine.register(captures)
    with pytest.raises(StatelessnessError, match=r"by_default\.defaults\['guard'\] is a _thread"):
        engine.register(by_default)
    engine.register(in_the_host)
    assert engine.run("in_the_host") is False


def test_register_copies_nothing(engine: TheusEngine) -> None:
    large = np.ones(1 << 18)

    @process(parallel=True)
    def sums(ctx: Any) -> float:
        return float(large.sum())

    engine.register(sums)
    assert engine.stats()["segments"] == 0
    with pytest.warns(LargeArgumentWarning):
        assert engine.run("sums") == 1 << 18


def test_register_warns_of_module_state(engine: TheusEngine, module: Any) -> None:
    with pytest.warns(StatelessnessWarning, match="uses_lock uses module_with_state.lock"):
        engine.register(module.uses_lock)
