"""What is published stays as it is, and memory lives exactly as long as it is seen.

Three invariants: a snapshot reads the same for ever, and a task sees the version that it was given;
a published array cannot be written; a view stays valid, and its memory goes with the last thing
that was derived from it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs
from gate import Gate
from polling import until
from processes import regions
from programs import run_text
from theus import TheusEngine

LENGTH = 300_000  # above what is put together with others
NBYTES = LENGTH * 8


@pytest.fixture(scope="module")
def engine(shared_engine: TheusEngine) -> TheusEngine:
    return shared_engine


# ---- snapshots -----------------------------------------------------------------------------------


def by_array(array: Any) -> Callable[[float], None]:
    return lambda value: np.copyto(array, value)


def by_slice(array: Any) -> Callable[[float], None]:
    part = array[::2]
    return lambda value: part.fill(value)


def by_plain_view(array: Any) -> Callable[[float], None]:
    plain = np.asarray(array)
    return lambda value: plain.fill(value)


def by_transposed_plain_view(array: Any) -> Callable[[float], None]:
    plain = np.asarray(array).reshape(100, -1).T[5:10]
    return lambda value: plain.fill(value)


def by_memoryview(array: Any) -> Callable[[float], None]:
    view = memoryview(np.asarray(array)).cast("B").cast("d")

    def write(value: float) -> None:
        view[7] = value

    return write


def by_pointer(array: Any) -> Callable[[float], None]:
    pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))

    def write(value: float) -> None:
        pointer[7] = value

    return write


def by_address(array: Any) -> Callable[[float], None]:
    address = jobs.address(array)
    return lambda value: ctypes.memset(address, int(value), NBYTES) and None


def by_ctypes_array(array: Any) -> Callable[[float], None]:
    cells = np.ctypeslib.as_ctypes(np.asarray(array))

    def write(value: float) -> None:
        cells[7] = value

    return write


WRITERS = [
    by_array,
    by_slice,
    by_plain_view,
    by_transposed_plain_view,
    by_memoryview,
    by_pointer,
    by_address,
    by_ctypes_array,
]


@pytest.mark.parametrize("publish", ["publish", "swap", "item"])
@pytest.mark.parametrize("make_writer", WRITERS, ids=lambda writer: writer.__name__)
def test_writers_from_before_publish_change_nothing(
    engine: TheusEngine, make_writer: Callable[[Any], Callable[[float], None]], publish: str
) -> None:
    array = engine.heavy.alloc("x", LENGTH)
    write = make_writer(array)
    write(2.0)
    expected = array.copy()
    assert (expected != 0).any(), "before publish it writes to the array"
    array[3] = expected[3] = 5.0
    if publish == "publish":
        array.publish()
    elif publish == "swap":
        engine.compare_and_swap(engine.state.version, heavy={"x": array})
    else:
        engine.heavy["x"] = array
    snapshot = engine.state
    early = snapshot.heavy["x"]
    np.testing.assert_array_equal(early, expected)
    with contextlib.suppress(ValueError):  # refused, or without effect on others
        write(9.0)
    for reader in (early, snapshot.heavy["x"], engine.heavy["x"]):
        np.testing.assert_array_equal(reader, expected)
    assert engine.run(jobs.read_all, "x")["checksum"] == jobs.checksum(expected)
    del array, write, early, reader, snapshot, engine.heavy["x"]


def test_a_snapshot_keeps_its_arrays_and_values(engine: TheusEngine) -> None:
    snapshots = []
    for step in range(1, 6):
        engine.compare_and_swap(
            engine.state.version, data={"step": step, "list": [step]}, heavy={"x": np.full(4, step)}
        )
        snapshots.append(engine.state)
    del engine.heavy["x"]
    for step, snapshot in enumerate(snapshots, 1):
        assert snapshot.data["step"] == step
        assert snapshot.data["list"] == [step]
        assert snapshot.heavy["x"].tolist() == [step] * 4
    assert [s.version for s in snapshots] == sorted({s.version for s in snapshots})
    with pytest.raises(TypeError):
        snapshots[0].data["step"] = 9
    with pytest.raises((TypeError, AttributeError)):
        snapshots[0].data["list"].append(9)


def test_a_queued_task_sees_the_version_it_was_given(gate: Gate) -> None:
    with TheusEngine({"step": 1}, workers=1) as engine:
        engine.heavy.put("x", [1.0])
        blocker = engine.submit(jobs.wait_and_give, 0, reports=gate.reports, gate=gate.path)
        gate.arrived(1)
        version = engine.state.version
        queued = engine.submit(jobs.read_twice, "x", reports=gate.reports, gate=gate.path)
        engine.compare_and_swap(version, data={"step": 2}, heavy={"x": np.array([2.0])})
        gate.open()
        assert queued.result(60) == ((version, 1.0, 1), (version, 1.0, 1))
        assert blocker.result(60) == 0


def test_a_running_task_keeps_its_version(gate: Gate) -> None:
    with TheusEngine({"step": 1}, workers=1) as engine:
        engine.heavy.put("x", [1.0])
        version = engine.state.version
        running = engine.submit(jobs.read_twice, "x", reports=gate.reports, gate=gate.path)
        gate.arrived(1)
        engine.compare_and_swap(version, data={"step": 2}, heavy={"x": np.array([2.0])})
        del engine.heavy["x"]
        gate.open()
        assert running.result(60) == ((version, 1.0, 1), (version, 1.0, 1))


# ---- nobody writes -------------------------------------------------------------------------------


def test_the_kernel_refuses_a_worker(engine: TheusEngine) -> None:
    engine.heavy.put("x", np.ones(LENGTH))
    assert engine.run(jobs.make_memory_writable, "x") == errno.EACCES
    del engine.heavy["x"]


def test_the_kernel_refuses_the_host(engine: TheusEngine) -> None:
    view = engine.heavy.put("x", np.ones(LENGTH))
    assert jobs.make_pages_writable(engine.heavy["x"]) == errno.EACCES
    del view, engine.heavy["x"]


def test_writing_in_the_host_past_numpy_is_a_fault(tmp_path: Path) -> None:
    """As for a worker, except that here it is the program's own process that ends."""
    ended = run_text(
        """
        import ctypes, resource
        import numpy as np
        from theus import TheusEngine
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        engine = TheusEngine(workers=1)
        engine.heavy.put("x", np.ones(300_000))
        view = engine.heavy["x"]
        print(view[0], flush=True)
        ctypes.memset(view.ctypes.data, 0, 8)
        print("written")
        """,
        cwd=tmp_path,
    )
    assert ended.out == "1.0\n"
    assert ended.code == -signal.SIGSEGV


def test_a_worker_cannot_change_what_it_returned(gate: Gate) -> None:
    with TheusEngine(workers=1) as engine:
        result = engine.run(jobs.grow_output, "out", LENGTH)
        engine.heavy["out"] = result
        assert engine.run(jobs.write_to_kept) == [-1.0] * 10, "it is the worker's own now"
        for reader in (result, engine.heavy["out"]):
            np.testing.assert_array_equal(reader, np.arange(LENGTH))
        assert engine.run(jobs.read_all, "out")["checksum"] == jobs.checksum(
            np.arange(LENGTH) * 1.0
        )
        del result, reader


# ---- as long as it is seen -----------------------------------------------------------------------


def mapped() -> int:
    """Bytes of memory files that this process maps, but for single pages of bookkeeping."""
    spans = (r.end - r.start for r in regions() if r.is_shared_memory)
    return sum(span for span in spans if span >= NBYTES)


def test_views_outlive_their_engine() -> None:
    at_first = mapped()
    engine = TheusEngine(workers=1)
    array = engine.heavy.alloc("x", LENGTH)
    array[:] = 3.0
    array.publish()
    part = engine.heavy["x"][1000::1000]
    plain = np.asarray(part)[:5]
    view = memoryview(plain)
    engine.close()
    del array, part, engine
    gc.collect()
    assert plain.tolist() == [3.0] * 5
    del plain
    gc.collect()
    assert view[2] == 3.0
    assert mapped() > at_first
    del view
    until(lambda: gc.collect() >= 0 and mapped() == at_first, "the memory to be unmapped")


def test_views_outlive_their_key(engine: TheusEngine) -> None:
    in_use, at_first = engine.stats()["memory"]["in_use"], mapped()
    engine.heavy.put("x", np.full(LENGTH, 1.0))
    first = engine.heavy["x"][5:]
    engine.heavy.put("x", np.full(LENGTH, 2.0))
    second = engine.heavy["x"]
    assert engine.run(jobs.read_all, "x")["checksum"] == jobs.checksum(second)
    del engine.heavy["x"]
    engine.reap()
    assert first.min() == first.max() == 1.0
    assert second.min() == second.max() == 2.0
    assert engine.stats()["memory"]["in_use"] >= in_use + 2 * NBYTES
    derived = np.asarray(first).reshape(5, -1)[2]
    del first, second
    gc.collect()
    assert derived.min() == derived.max() == 1.0
    until(
        lambda: engine.stats()["memory"]["in_use"] < in_use + 2 * NBYTES,
        "the array that nobody sees to go",
    )
    del derived
    until(lambda: engine.stats()["memory"]["in_use"] == in_use, "all of it to be given back")
    until(lambda: mapped() == at_first, "it to be unmapped")


def test_replacing_a_key_over_and_over_needs_no_more_memory(engine: TheusEngine) -> None:
    at_first = engine.stats()["memory"]["in_use"]
    for step in range(50):
        engine.heavy.put("x", np.full(LENGTH, step))
        if step % 10 == 0:
            assert engine.run(jobs.read_all, "x")["checksum"] == jobs.checksum(engine.heavy["x"])
    until(
        lambda: engine.stats()["memory"]["in_use"] <= at_first + 2 * NBYTES,
        "old versions to be given back",
    )
    del engine.heavy["x"]


def test_a_snapshot_that_was_forgotten_holds_one_version_only(engine: TheusEngine) -> None:
    at_first = engine.stats()["memory"]["in_use"]
    engine.heavy.put("x", np.full(LENGTH, 0.0))
    forgotten = engine.state
    for step in range(20):
        engine.heavy.put("x", np.full(LENGTH, step))
    until(
        lambda: engine.stats()["memory"]["in_use"] <= at_first + 3 * NBYTES,
        "the versions between to be given back",
    )
    assert forgotten.heavy["x"].max() == 0.0
    del forgotten, engine.heavy["x"]
    until(lambda: engine.stats()["memory"]["in_use"] == at_first, "all of it to be given back")


def test_results_are_freed_with_their_last_view(engine: TheusEngine) -> None:
    at_first = mapped()
    result = engine.run(jobs.make_results, LENGTH)
    part = result["up"][::7]
    del result
    gc.collect()
    assert part[1] == 8.0
    assert mapped() > at_first
    del part
    until(lambda: gc.collect() >= 0 and mapped() == at_first, "the result to be unmapped")


def test_an_array_that_was_never_published_is_freed(engine: TheusEngine) -> None:
    at_first = engine.stats()["memory"]["in_use"]
    array = engine.heavy.alloc("never", LENGTH)
    assert engine.stats()["memory"]["in_use"] >= at_first + NBYTES
    del array
    until(lambda: engine.stats()["memory"]["in_use"] == at_first, "it to be given back")
    assert engine.heavy.get("never") is None
