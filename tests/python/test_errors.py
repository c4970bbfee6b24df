"""Each error is also what a caller would catch who does not know theus."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
from concurrent.futures.process import BrokenProcessPool

import pytest

import theus
from theus import errors

BASES = [
    ("ContextError", Exception),
    ("ContractViolationError", PermissionError),
    ("StatelessnessError", TypeError),
    ("WorkerCrashed", BrokenProcessPool),
    ("TaskTimeout", TimeoutError),
    ("TaskTimeout", asyncio.TimeoutError),
    ("TaskTimeout", concurrent.futures.TimeoutError),
    ("HeapFull", MemoryError),
    ("UnknownProcess", KeyError),
    ("UnknownProcess", ValueError),
    ("EngineClosed", RuntimeError),
    ("ForkedProcessError", RuntimeError),
    ("SegmentGone", LookupError),
    ("StreamFull", TimeoutError),
]


@pytest.mark.parametrize(("name", "base"), BASES)
def test_hierarchy(name: str, base: type) -> None:
    kind = getattr(theus, name)
    assert issubclass(kind, errors.TheusError)
    assert issubclass(kind, base)
    assert kind is getattr(errors, name), "one class, however it is reached"


@pytest.mark.parametrize("name", sorted({name for name, _ in BASES}))
def test_text_is_readable_and_survives_pickling(name: str) -> None:
    error = getattr(errors, name)("what, where, what to do")
    error.detail = {"a": 1}
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == "what, where, what to do"
    assert again.detail == {"a": 1}


def test_attributes_survive_pickling() -> None:
    conflict = errors.Conflict("a.b", 3)
    error = errors.ContextError("x", expected=1, found=3, conflicts=[conflict])
    again = pickle.loads(pickle.dumps(error))
    assert (again.expected, again.found, again.conflicts) == (1, 3, (conflict,))
    crash = pickle.loads(pickle.dumps(errors.WorkerCrashed("x", pid=7, signal=9, reason="oom")))
    assert (crash.pid, crash.signal, crash.exit_code, crash.reason) == (7, 9, None, "oom")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="NoSuchError"):
        _ = errors.NoSuchError
