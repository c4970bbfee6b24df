"""What a user does, and what they get: each mistake that the documentation names, one by one.

Every error has the type that a caller would catch, says where the culprit is and what to do
instead, and leaves the pool as it was: the same worker processes serve the next task.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest

import jobs
import jobs_that_fail
import theus
from shared_engine import pool_untouched
from theus import (
    ContractViolationError,
    HeapFull,
    RemoteError,
    StatelessnessError,
    TheusEngine,
    UnknownProcess,
    WorkerCrashed,
    process,
)

Engine = TheusEngine


@pytest.fixture(scope="module")
def engine(shared_engine: TheusEngine) -> TheusEngine:
    return shared_engine


# ---- names, not data -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[np.zeros(3)], np.zeros(3), [{"a": 1}], [3]])
def test_data_in_inputs_of_the_decorator(data: Any) -> None:
    with pytest.raises(TypeError, match="names, not data") as caught:
        process(inputs=data, parallel=True)(lambda ctx: None)
    assert "engine.heavy" in str(caught.value)
    assert "heavy.prices" in str(caught.value), "an example of what to write"


# ---- writing to what is published ----------------------------------------------------------------


@pytest.fixture
def published(engine: Engine) -> Iterator[str]:
    engine.heavy.put("prices", np.arange(1.0, 100.0))
    yield "prices"
    del engine.heavy["prices"]


def assign_item(array: Any) -> None:
    array[0] = 1


def assign_slice(array: Any) -> None:
    array[:] = 0


def assign_in_a_slice(array: Any) -> None:
    array[10:20][0] = 1


def add_in_place(array: Any) -> None:
    array += 1


def sort(array: Any) -> None:
    array.sort()


def fill(array: Any) -> None:
    array.fill(1)


def make_writable(array: Any) -> None:
    array.setflags(write=True)


def make_writable_by_flag(array: Any) -> None:
    array.flags.writeable = True


def numpy_copyto(array: Any) -> None:
    np.copyto(array, 1.0)


def numpy_add(array: Any) -> None:
    np.add(array, 1.0, out=array)


def numpy_put(array: Any) -> None:
    np.put(array, [0], [1.0])


def numpy_shuffle(array: Any) -> None:
    np.random.default_rng(0).shuffle(array)


def write_to_plain_view(array: Any) -> None:
    np.asarray(array)[0] = 1


BY_THE_ARRAY = [
    assign_item,
    assign_slice,
    assign_in_a_slice,
    add_in_place,
    sort,
    fill,
    make_writable,
]
BY_NUMPY = [numpy_copyto, numpy_add, numpy_put, numpy_shuffle, write_to_plain_view]


@pytest.mark.parametrize("write", BY_THE_ARRAY, ids=lambda write: write.__name__)
def test_a_worker_writes_to_a_published_array(
    engine: Engine, published: str, write: Callable[[Any], None]
) -> None:
    with pool_untouched(engine):
        with pytest.raises(ValueError, match=r"heavy\['prices'\] is read-only") as caught:
            engine.run(jobs_that_fail.apply_to_heavy, write, published)
        assert "ctx.heavy.cow('prices')" in str(caught.value)
        assert engine.run(jobs.peek, published) == list(np.arange(1.0, 100.0))


@pytest.mark.parametrize(
    "write", [*BY_NUMPY, make_writable_by_flag], ids=lambda write: write.__name__
)
def test_numpy_writes_to_a_published_array(
    engine: Engine, published: str, write: Callable[[Any], None]
) -> None:
    with pool_untouched(engine):
        with pytest.raises(ValueError, match=r"(?i)read-?only|writeable") as caught:
            engine.run(jobs_that_fail.apply_to_heavy, write, published)
        told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
        assert "'prices'" in told
        assert "ctx.heavy.cow('prices')" in told
        assert engine.run(jobs.peek, published) == list(np.arange(1.0, 100.0))


@pytest.mark.parametrize("write", [*BY_THE_ARRAY, *BY_NUMPY], ids=lambda write: write.__name__)
def test_the_host_writes_to_a_published_array(
    engine: Engine, published: str, write: Callable[[Any], None]
) -> None:
    filled = engine.heavy.alloc("filled", 10)
    filled.publish()
    for key, array in (("prices", engine.heavy[published]), ("filled", filled)):
        with pytest.raises(ValueError, match=r"(?i)read-?only|writeable") as caught:
            write(array)
        if write in BY_THE_ARRAY:
            assert f"heavy[{key!r}] is read-only" in str(caught.value)
            assert f"engine.heavy.edit({key!r})" in str(caught.value)
    del filled, array, caught, engine.heavy["filled"]


def test_a_c_extension_ignores_the_flag() -> None:
    with TheusEngine(workers=2) as engine:
        published = "prices"
        engine.heavy.put(published, np.arange(1.0, 100.0))
        with pytest.raises(WorkerCrashed) as caught:
            engine.run(jobs_that_fail.overwrite_by_address, published)
        assert '"prices"' in str(caught.value)
        assert "ctx.heavy.cow" in str(caught.value)
        assert caught.value.signal == 11
        assert engine.run(jobs.peek, published) == list(np.arange(1.0, 100.0))


def test_a_private_copy_can_be_written(engine: Engine, published: str) -> None:
    assert engine.run(jobs.add_to_cow, published) == 2.0
    assert engine.run(jobs.peek, published)[0] == 1.0


# ---- the names of shared memory ------------------------------------------------------------------


def test_unlink(engine: Engine, published: str) -> None:
    with pytest.raises(PermissionError, match="owned by theus") as caught:
        engine.heavy[published].shm.unlink()
    assert f"heavy['{published}']" in str(caught.value)
    with pool_untouched(engine):
        with pytest.raises(PermissionError, match="owned by theus"):
            engine.run(jobs_that_fail.unlink, published)
        assert engine.run(jobs.peek, published)[:2] == [1.0, 2.0]


def test_opening_the_memory_by_name(engine: Engine) -> None:
    array = engine.heavy.put("large_dataset", np.ones(4))
    with pytest.raises(FileNotFoundError) as caught:
        SharedMemory(name=array.shm.name)
    assert "theus-use-ctx.heavy-large_dataset" in str(caught.value.filename)
    with pool_untouched(engine), pytest.raises(FileNotFoundError) as caught:
        engine.run(jobs_that_fail.open_by_name, "large_dataset")
    assert "theus-use-ctx.heavy-large_dataset" in str(caught.value.filename)
    del array, engine.heavy["large_dataset"]


# ---- misspelt names ------------------------------------------------------------------------------


@pytest.fixture
def unlike(engine: Engine) -> Iterator[None]:
    """An array whose name is not like that of the published one at all."""
    engine.heavy.put("volumes", np.ones(3))
    yield
    del engine.heavy["volumes"]


@pytest.mark.usefixtures("unlike")
@pytest.mark.parametrize(
    ("misspelt", "meant", "others"),
    [
        ("ctx.inptu", "input", "heavy"),
        ("ctx.input.rat", "rate", "column"),
        ("ctx.heavy.pricse", "prices", "volumes"),
        ("ctx.domain.rat", "rate", "column"),
        ("ctx.heavy['pricse']", "prices", "volumes"),
        ("ctx.input['rat']", "rate", "column"),
    ],
)
def test_a_misspelt_name_in_a_worker(
    engine: Engine, published: str, misspelt: str, meant: str, others: str
) -> None:
    kind = KeyError if misspelt.endswith("]") else AttributeError
    with pool_untouched(engine), pytest.raises(kind) as caught:
        engine.run(jobs_that_fail.evaluate, misspelt, rate=1, column=2)
    assert f"did you mean {meant!r}" in str(caught.value).lower()
    assert others in str(caught.value)


def test_an_unknown_process(engine: Engine) -> None:
    engine.register(jobs.nothing, "total_of_column")
    with pool_untouched(engine):
        with pytest.raises(UnknownProcess) as caught:
            engine.run("total_of_colum")
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, ValueError)
        assert "total_of_column" in str(caught.value)
        assert not str(caught.value).startswith("'"), "the text, not its repr"
        assert caught.value.name == "total_of_colum"
        assert "total_of_column" in caught.value.known
        with pytest.raises(UnknownProcess, match="read_all"):
            engine.run("raed_all")  # decorated, if not registered


# ---- allocating ----------------------------------------------------------------------------------


def test_alloc_without_elements_works(engine: Engine) -> None:
    array = engine.heavy.alloc("none", (0, 3))
    array.publish()
    assert engine.heavy["none"].shape == (0, 3)
    del array, engine.heavy["none"]


@pytest.mark.parametrize("shape", [-1, (3, -2)])
def test_alloc_of_a_negative_size(engine: Engine, shape: Any) -> None:
    with pytest.raises(ValueError, match="negative"):
        engine.heavy.alloc("k", shape)
    with pool_untouched(engine), pytest.raises(ValueError, match="negative"):
        engine.run(jobs.alloc, "k", shape)


@pytest.mark.parametrize("dtype", [object, [("name", object), ("x", float)]])
def test_alloc_of_python_objects(engine: Engine, dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"Python objects.*(astype|Use numbers)"):
        engine.heavy.alloc("k", 3, dtype)
    with pytest.raises(TypeError, match=r"Python objects.*(astype|Use numbers)"):
        engine.heavy.put("k", np.zeros(3, dtype))
    with (
        pool_untouched(engine),
        pytest.raises(TypeError, match=r"Python objects.*(astype|Use numbers)"),
    ):
        engine.run(jobs.alloc, "k", 3, dtype)


def test_alloc_over_budget() -> None:
    with TheusEngine(workers=2, heap="8MB") as engine:
        engine.submit(pow, 1, 1).result(60)
        engine.heavy.put("the large one", np.ones(4 << 17))
        engine.heavy.put("the small one", np.ones(1 << 17))
        with pool_untouched(engine):
            with pytest.raises(HeapFull) as caught:
                engine.heavy.alloc("one more", 4 << 17)
            error = caught.value
            assert isinstance(error, MemoryError)
            assert error.asked >= 4 << 20
            assert error.in_use >= 5 << 20
            assert error.limit == 8 << 20
            text = str(error)
            assert "the large one" in text
            assert text.index("the large one") < text.index("the small one"), "largest first"
            assert error.holders
            with pytest.raises(HeapFull, match="the large one"):
                engine.run(jobs.alloc, "one more", 4 << 17)
            # A heap that is full is not broken.
            del engine.heavy["the large one"]
            engine.heavy.put("one more", np.ones(4 << 17))


# ---- what cannot come back -----------------------------------------------------------------------


def test_an_exception_that_cannot_be_unpickled(engine: Engine) -> None:
    with pool_untouched(engine):
        with pytest.raises(RemoteError) as caught:
            engine.run(jobs_that_fail.raise_unpicklable, "the reason")
        assert caught.value.type_name == "jobs_that_fail.Unpicklable"
        assert "Unpicklable" in str(caught.value)
        assert "the reason" in str(caught.value)
        assert "raise_unpicklable" in caught.value.traceback
        assert "raise_unpicklable" in str(caught.value.__cause__)


@pytest.mark.parametrize("where", ["", "['deep'][1]"])
def test_a_result_that_cannot_be_pickled(engine: Engine, where: str) -> None:
    with pool_untouched(engine):
        with pytest.raises(TypeError) as caught:
            engine.run(jobs_that_fail.return_lock, nested=bool(where))
        assert "_thread.lock" in str(caught.value)
        assert f"result{where}" in str(caught.value)
        assert "return_lock" in str(caught.value)
        assert caught.value.__cause__ is not None


def test_a_state_update_that_cannot_be_pickled(engine: Engine) -> None:
    version = engine.state.version
    with pool_untouched(engine), pytest.raises(TypeError, match=r"_thread\.lock") as caught:
        engine.run(jobs_that_fail.update_with_lock)
    assert "data" in str(caught.value)
    assert engine.state.version == version


# ---- the types -----------------------------------------------------------------------------------


def test_all_errors_are_theus_errors() -> None:
    kinds = [
        theus.ContextError,
        ContractViolationError,
        StatelessnessError,
        WorkerCrashed,
        theus.TaskTimeout,
        HeapFull,
        UnknownProcess,
        theus.EngineClosed,
        theus.ForkedProcessError,
        theus.SegmentGone,
        RemoteError,
    ]
    for kind in kinds:
        assert issubclass(kind, theus.TheusError), kind
    assert issubclass(ContractViolationError, PermissionError)


def test_where_nothing_went_wrong_nothing_is_printed() -> None:
    """A refused call prints nothing of its own."""
    program = """
        import threading
        from theus import TheusEngine, StatelessnessError
        engine = TheusEngine(workers=1)
        try:
            engine.run(print, threading.Lock())
        except StatelessnessError as refused:
            print(refused.path)
        print(engine.run(pow, 2, 5))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "args[0]\n32\n", "")
