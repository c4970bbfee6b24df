"""engine.heavy.window: the newest rows of a series, in one piece that later rows never touch."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs
import theus
from conftest import EngineFactory
from gate import Gate
from polling import until
from theus import EngineClosed, HeapFull, ShmArray, TheusEngine, process


@process(parallel=True)
def window_twice(ctx: Any, path: str, gate: str) -> tuple[list[float], list[float]]:
    """What the window shows, before and after others have appended."""
    first = ctx.heavy.ticks.tolist()
    jobs.report(path)
    jobs.wait_at(gate)
    return first, ctx.heavy.ticks.tolist()


@process(parallel=True)
def segment_and_rows(ctx: Any) -> tuple[int, list[float]]:
    """Where the window lies, and what it shows."""
    ticks = ctx.heavy.ticks
    assert ticks.flags.c_contiguous
    assert not ticks.flags.writeable
    return int(ticks._memory.origin.segment), ticks.tolist()


def test_it_grows_until_it_is_full(engine: TheusEngine) -> None:
    ticks = engine.heavy.window("ticks", np.int32, rows=3)
    assert engine.heavy["ticks"].shape == (0,)
    assert engine.heavy["ticks"].dtype == np.int32
    shown = [ticks.append(number).tolist() for number in range(5)]
    assert shown == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert engine.state.version == 6
    assert engine.heavy["ticks"].tolist() == [2, 3, 4]


def test_workers_read_it_where_it_is(engine: TheusEngine) -> None:
    ticks = engine.heavy.window("ticks", rows=4)
    places = []
    for number in range(10):
        ticks.append(number)
        place, rows = engine.run(segment_and_rows)
        places.append(place)
        assert rows == [float(n) for n in range(max(0, number - 3), number + 1)]
    assert len(set(places)) == 1, "no row was copied"


def test_what_is_read_never_changes(engine: TheusEngine, gate: Gate) -> None:
    ticks = engine.heavy.window("ticks", rows=3)
    ticks.append([1, 2, 3])
    task = engine.submit(window_twice, gate.reports, gate.path)
    gate.arrived(1)
    snapshot, view = engine.state, engine.heavy["ticks"]
    ticks.append(np.arange(20_000.0))  # goes on in other memory
    ticks.append(np.arange(20_000.0))
    gate.open()
    assert task.result(60) == ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert snapshot.heavy["ticks"].tolist() == view.tolist() == [1.0, 2.0, 3.0]


def test_rows_of_several_numbers_and_of_records(engine: TheusEngine) -> None:
    points = engine.heavy.window("points", np.float32, rows=2, shape=(3,))
    assert points.append([1, 2, 3]).tolist() == [[1, 2, 3]]
    assert points.append([[4, 5, 6], [7, 8, 9]]).tolist() == [[4, 5, 6], [7, 8, 9]]
    assert points.append(np.empty((0, 3))).tolist() == [[4, 5, 6], [7, 8, 9]]

    kind = np.dtype([("at", "i8"), ("price", "f4"), ("name", "U5")])
    records = engine.heavy.window("records", kind, rows=10)
    records.append((1, 2.5, "abc"))
    shown = records.append([(2, 3.5, "de"), (3, 4.5, "f")])
    assert shown.dtype == kind
    assert shown["price"].tolist() == [2.5, 3.5, 4.5]
    assert shown["name"].tolist() == ["abc", "de", "f"]

    inner = engine.heavy.window("inner", ("f4", (2,)), rows=2)
    assert inner.append([1, 2]).shape == (1, 2)


@given(
    rows=st.integers(1, 9000),
    appends=st.lists(st.integers(0, 6000), min_size=1, max_size=10),
    width=st.sampled_from([None, 1, 3]),
)
@settings(max_examples=40)
def test_against_a_list(
    shared_engine: TheusEngine, rows: int, appends: list[int], width: int | None
) -> None:
    shape = () if width is None else (width,)
    window = shared_engine.heavy.window("model", np.int64, rows=rows, shape=shape)
    series = np.empty((0, *shape), np.int64)
    given: list[tuple[ShmArray, np.ndarray[Any, Any]]] = []
    for count in appends:
        size = count * (width or 1)
        new = np.arange(series.size, series.size + size, dtype=np.int64).reshape(count, *shape)
        series = np.concatenate([series, new])
        shown = window.append(new)
        assert shown.flags.c_contiguous
        given.append((shown, series[-rows:].copy()))
        for old, expected in given:
            np.testing.assert_array_equal(old, expected)
    del shared_engine.heavy["model"]


def test_rows_of_several_threads(engine: TheusEngine) -> None:
    ticks = engine.heavy.window("ticks", np.int64, rows=100)
    wrong: list[Any] = []

    def write(first: int) -> None:
        for number in range(first, first + 500):
            shown = ticks.append(number)
            if number not in shown:
                wrong.append((number, shown.tolist()))

    threads = [threading.Thread(target=write, args=(n * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    last = 0
    while any(thread.is_alive() for thread in threads):
        state = engine.state
        assert state.version >= last
        last = state.version
        assert len(state.heavy["ticks"]) <= 100
    assert not wrong
    everything = engine.heavy.window("all", np.int64, rows=3000)
    everything.append(engine.heavy["ticks"])
    assert everything.append(ticks.append(7)).shape == (200,)
    assert engine.state.version == 1 + 4 * 500 + 4


def test_full_heaps_and_closed_engines(make_engine: EngineFactory) -> None:
    engine = make_engine(heap="4MB", workers=1)
    with pytest.raises(HeapFull, match="ticks"):
        engine.heavy.window("ticks", rows=1_000_000)
    ticks = engine.heavy.window("ticks", rows=60_000)  # about 1 MiB
    ticks.append(np.arange(60_000.0))
    old = engine.heavy["ticks"]
    other = engine.heavy.alloc("other", 3 << 17)
    ticks.append(np.arange(60_000.0) + 1)  # the memory of the window is full now
    with pytest.raises(HeapFull):
        ticks.append(np.zeros(1000))
    before = engine.heavy["ticks"][-1]
    del other
    assert ticks.append(np.full(1000, 5.0))[-1001:-999].tolist() == [before, 5.0]
    engine.close()
    with pytest.raises(EngineClosed):
        ticks.append(6.0)
    assert old[-1] == 59_999.0


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"rows": 0}, ValueError, "rows must be at least 1, not 0"),
        ({"rows": 1.5}, TypeError, "rows must be a whole number, not 1.5"),
        ({"rows": 3, "shape": (2, 0)}, ValueError, "has no bytes"),
        ({"rows": 3, "shape": -1}, ValueError, "negative"),
        ({"rows": 3, "dtype": object}, TypeError, "Python objects"),
        ({"rows": 2**62}, (ValueError, HeapFull), "address space"),
        ({"rows": 2**64 + 5}, ValueError, "larger than any memory"),
    ],
)
def test_what_makes_no_window(
    engine: TheusEngine, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        engine.heavy.window("ticks", **arguments)
    assert "ticks" not in engine.heavy


def test_rows_that_do_not_fit_are_refused(engine: TheusEngine) -> None:
    points = engine.heavy.window("points", rows=2, shape=3)
    for wrong in (1.0, [1, 2], np.zeros((2, 2)), np.zeros((1, 1, 3))):
        with pytest.raises(ValueError, match=r"heavy\['points'\] takes a row of shape \(3,\), or"):
            points.append(wrong)
    with pytest.raises(ValueError, match="could not convert"):
        points.append(["a", "b", "c"])
    assert engine.heavy["points"].shape == (0, 3)
    assert repr(points) == "<window heavy['points'] of 2 rows of float64(3,)>"
    with pytest.raises(TypeError, match=r"ctx\.heavy\['points'\]"):
        pickle.dumps(points)


def test_a_window_can_be_under_another_key_too(engine: TheusEngine) -> None:
    ticks = engine.heavy.window("ticks", rows=3)
    ticks.append([1, 2, 3])
    engine.heavy["kept"] = engine.heavy["ticks"]
    ticks.append([4, 5, 6])
    assert engine.heavy["kept"].tolist() == [1, 2, 3]
    assert theus.is_shared(engine.heavy["kept"])


def test_nothing_is_left_of_a_window(engine: TheusEngine) -> None:
    ticks = engine.heavy.window("ticks", rows=3)
    for number in range(9_000):
        ticks.append(number)
    del engine.heavy["ticks"], ticks
    until(lambda: engine.stats()["segments"] == 0, "the window to go")


@process(parallel=True)
def newest_of(ctx: Any, old: Any) -> Any:
    """The window, though an older one was given, of which it shares the memory."""
    return ctx.heavy.ticks, ctx.heavy.ticks[-2:], old[:1]


def test_windows_that_overlap_are_told_apart_in_results(engine: TheusEngine) -> None:
    ticks = engine.heavy.window("ticks", rows=20)
    empty = engine.heavy.ticks
    old = ticks.append(np.arange(10.0))
    ticks.append(np.arange(10.0, 20.0))
    for older in (old, empty):
        newest, last, first = engine.run(newest_of, old=older)
        assert newest.tolist() == list(range(20))
        assert newest.shm.size == 160
        assert newest._memory.origin.version == engine.state.version
        assert last.tolist() == [18.0, 19.0]
        assert first.tolist() == older[:1].tolist()


def test_an_append_within_an_append(engine: TheusEngine) -> None:
    """As by the handler of a signal: the outer one publishes both."""
    ticks = engine.heavy.window("ticks", rows=10)
    publish = ticks._publish
    seen: list[Any] = []

    def interrupted(array: ShmArray) -> int:
        if not seen:
            seen.append(None)
            seen[0] = ticks.append(2.0).tolist()
        return publish(array)

    ticks._publish = interrupted
    assert ticks.append(1.0).tolist() == [1.0, 2.0]
    assert seen == [[1.0, 2.0]]
    assert engine.heavy.ticks.tolist() == [1.0, 2.0]
    assert ticks.append(3.0)._memory.origin.version == engine.state.version  # type: ignore[union-attr]


def test_a_forked_child_is_told_at_once(engine: TheusEngine) -> None:
    ticks = engine.heavy.window("ticks", rows=10)
    reader, writer = os.pipe()
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ticks._lock:
            locked.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads and forks
        child = os.fork()
    if child == 0:
        try:
            ticks.append(1.0)
        except BaseException as error:
            os.write(writer, type(error).__name__.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    done.set()
    thread.join()
    with os.fdopen(reader) as said:
        assert said.read() == "ForkedProcessError"
