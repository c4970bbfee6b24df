"""map(…, out=key): each item writes its own row of one array."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theus
from polling import until
from processes import region_of
from theus import TheusEngine, is_shared, process


def square(x: float) -> float:
    return x * x


@process(parallel=True)
def fill(ctx: Any, x: int, y: int = 0) -> None:
    """The row is there to be written, and it is zeroed."""
    assert not ctx.out.any()
    ctx.out[:] = x
    ctx.out[0] += y


@process(parallel=True)
def inode_of_row(ctx: Any, x: int) -> None:
    ctx.out[:] = inode_of(ctx.out)


def inode_of(array: np.ndarray[Any, Any]) -> int:
    """Of the memory file that it lies in."""
    return region_of("self", array.__array_interface__["data"][0]).inode


@pytest.mark.parametrize("chunksize", ["auto", 1, 7])
def test_what_a_function_returns_is_its_row(engine: TheusEngine, chunksize: Any) -> None:
    squares = engine.map(square, range(100), out="squares", chunksize=chunksize)
    assert squares.tolist() == [x * x for x in range(100)]
    assert is_shared(squares)
    assert not squares.flags.writeable
    assert engine.heavy["squares"].tolist() == squares.tolist()
    assert engine.run(lambda ctx: float(ctx.heavy["squares"][7])) == 49.0


def test_a_process_writes_its_row(engine: TheusEngine) -> None:
    made = engine.map(fill, range(50), range(50, 100), out="rows", shape=3, dtype=np.int32)
    assert made.shape == (50, 3)
    assert made.dtype == np.int32
    assert made.tolist() == [[x + x + 50, x, x] for x in range(50)]


@pytest.mark.parametrize("shape", [(), 2, (2, 3), (0,)])
def test_rows_of_any_shape(engine: TheusEngine, shape: Any) -> None:
    def shape_of(ctx: Any, x: int) -> Any:
        return np.full(ctx.out.shape, x)

    made = engine.map(shape_of, [1, 2], out="rows", shape=shape, dtype="f4")
    lengths = (shape,) if isinstance(shape, int) else shape
    assert made.shape == (2, *lengths)
    assert made.tolist() == np.stack([np.full(lengths, 1.0), np.full(lengths, 2.0)]).tolist()


def test_records(engine: TheusEngine) -> None:
    dtype = np.dtype([("at", "i8"), ("price", "f8")])
    made = engine.map(lambda x: (x, x / 2), range(3), out="ticks", dtype=dtype)
    assert made.tolist() == [(0, 0.0), (1, 0.5), (2, 1.0)]


def test_no_items(engine: TheusEngine) -> None:
    made = engine.map(square, [], out="none", shape=4)
    assert made.shape == (0, 4)
    assert "none" in engine.heavy


def test_it_lies_where_the_workers_wrote_it(engine: TheusEngine) -> None:
    made = engine.map(inode_of_row, range(4), out="inodes", shape=1, dtype="i8", chunksize=1)
    assert set(made.ravel().tolist()) == {inode_of(made)}


def test_the_next_generation_replaces_it(engine: TheusEngine) -> None:
    first = engine.map(square, range(10), out="a")
    state = engine.state
    engine.map(lambda x: -x, range(10), out="a")
    assert first[3] == state.heavy["a"][3] == 9.0
    assert engine.heavy["a"][3] == -3.0
    del first, state
    until(lambda: engine.stats()["segments"] == 1, "the first to go")


def test_nobody_sees_it_before_all_rows_are_there(engine: TheusEngine) -> None:
    def look(ctx: Any, x: int) -> bool:
        return ctx.heavy.get("a") is None

    assert engine.map(look, range(20), out="a", dtype=bool).all()


def test_an_item_that_raises_leaves_nothing(engine: TheusEngine) -> None:
    def fails(x: int) -> int:
        if x == 5:
            raise ValueError("five")
        return x

    with pytest.raises(ValueError, match="five"):
        engine.map(fails, range(10), out="a")
    assert "a" not in engine.heavy
    until(lambda: engine.stats()["segments"] == 0, "its memory to come back")
    assert engine.map(square, [2], out="a").tolist() == [4.0]


def test_a_value_that_does_not_fit_is_an_error_of_its_item(engine: TheusEngine) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        engine.map(lambda x: [1, 2, 3], range(3), out="a", shape=2)
    assert "a" not in engine.heavy


def test_a_crash_is_told_and_publishes_nothing(engine: TheusEngine) -> None:
    def dies(x: int) -> int:
        if x == 3:
            os._exit(9)
        return x

    with pytest.raises(theus.WorkerCrashed):
        engine.map(dies, range(6), out="a", chunksize=1)
    assert "a" not in engine.heavy
    assert engine.map(square, [2], out="a").tolist() == [4.0]


kept: list[Any] = []


def keeps(ctx: Any, x: int) -> None:
    ctx.out[...] = x
    kept.append(ctx.out)


def scribble(ctx: Any) -> int:
    for row in kept:
        row[...] = -1
    return len(kept)


def test_what_is_written_after_the_call_reaches_nobody(engine: TheusEngine) -> None:
    made = engine.map(keeps, range(8), out="a", chunksize=1)
    written = sum(engine.run(scribble) for _ in range(8))
    assert written > 0
    assert made.tolist() == list(range(8))
    assert engine.run(lambda ctx: ctx.heavy["a"].tolist()) == list(range(8))


def forks(ctx: Any, x: int, directory: str) -> None:
    """Leaves a child that has the array still, and writes it when it has been published."""
    ctx.out[...] = x
    if os.fork() == 0:
        until(lambda: os.path.exists(f"{directory}/published"), "the array to be published")
        ctx.out[...] = -1
        open(f"{directory}/written{x}", "w").close()
        os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_worker_that_writes_on_changes_nothing(
    engine: TheusEngine, tmp_path: Path
) -> None:
    made = engine.map(forks, [1, 2], [str(tmp_path)] * 2, out="a")
    (tmp_path / "published").touch()
    for x in (1, 2):
        until((tmp_path / f"written{x}").exists, "the children to have written")
    assert made.tolist() == [1.0, 2.0]
    assert engine.heavy["a"].tolist() == [1.0, 2.0]


def test_in_this_process(engine: TheusEngine) -> None:
    @process
    def here(ctx: Any, x: int) -> int | None:
        if x % 2:
            return x
        ctx.out[...] = 10 * x
        return None

    made = engine.map(here, range(6), out="a")
    assert made.tolist() == [0, 1, 20, 3, 40, 5]
    assert engine.heavy["a"].tolist() == made.tolist()


def test_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEUS_USE_PROCESSES", "0")
    with TheusEngine() as engine:
        made = engine.map(fill, range(5), out="rows", shape=2)
        assert made.tolist() == [[x, x] for x in range(5)]


@pytest.mark.parametrize("length", [2, 500_000])
def test_items_of_this_process_that_still_run_when_another_fails(
    engine: TheusEngine, length: int
) -> None:
    begun, failed, written = (threading.Event() for _ in range(3))

    @process
    def here(ctx: Any, x: int) -> None:
        if x == 0:
            begun.wait(60)
            raise ValueError("the first")
        begun.set()
        failed.wait(60)
        ctx.out[:] = 1  # to memory that is still there
        written.set()

    with pytest.raises(ValueError, match="the first"):
        engine.map(here, [0, 1], out="a", shape=length, chunksize=1)
    failed.set()
    assert written.wait(60)
    # The traceback of the failure has the row of the item that failed.
    until(lambda: [gc.collect(), engine.stats()["segments"]][1] == 0, "its memory to come back")


def test_a_row_that_is_kept_in_this_process_is_no_way_to_the_array(engine: TheusEngine) -> None:
    rows: list[Any] = []

    @process
    def here(ctx: Any, x: int) -> None:
        ctx.out[...] = x
        rows.append(ctx.out)

    made = engine.map(here, [1, 2], out="a")
    for row in rows:
        row[...] = -1
    assert made.tolist() == engine.heavy["a"].tolist() == [1, 2]


def adds_once_more(ctx: Any, x: int, path: str) -> None:
    ctx.out[...] += x
    if x == 3 and not os.path.exists(path):
        open(path, "w").close()
        os._exit(9)


def test_an_item_that_is_run_again_finds_zeros(engine: TheusEngine, tmp_path: Path) -> None:
    again = engine.options(retries=1)
    paths = [str(tmp_path / "died")] * 6
    made = again.map(adds_once_more, range(6), paths, out="a", chunksize=6)
    assert made.tolist() == [0, 1, 2, 3, 4, 5]


def test_items_that_bring_many_large_arrays(engine: TheusEngine) -> None:
    arrays = [engine.heavy.put(f"k{i}", np.full(200_000, i)) for i in range(12)]
    sums = engine.map(np.sum, arrays, out="sums", chunksize=12)
    assert sums.tolist() == [i * 200_000 for i in range(12)]


@process(parallel=True, outputs=["domain.x"])
def declares(ctx: Any, x: int) -> int:
    return x


def updates(x: int) -> theus.StateUpdate:
    return theus.StateUpdate(key="domain.x", val=x)


def test_a_row_is_no_change_of_the_state(engine: TheusEngine) -> None:
    with pytest.raises(TypeError, match=r"declares declares outputs=\['domain.x'\]"):
        engine.map(declares, [1], out="a")
    with pytest.raises(TypeError, match="StateUpdate"):
        engine.map(updates, [1], out="a")
    assert engine.state.version == 0


def test_the_row_that_is_returned_is_no_second_result(engine: TheusEngine) -> None:
    def returns_row(ctx: Any, x: int) -> Any:
        ctx.out[:] = x
        return ctx.out

    assert engine.map(returns_row, range(3), out="a", shape=2).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_ctx_out_elsewhere_says_where_it_is(engine: TheusEngine) -> None:
    with pytest.raises(theus.TheusError, match=r"out=key"):
        engine.run(lambda ctx: ctx.out)
    with pytest.raises(theus.TheusError, match=r"out=key"):
        list(engine.map(lambda ctx, x: ctx.out, [1]))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"out": ""}, ValueError, "out is empty"),
        ({"out": "a", "shape": -1}, ValueError, "negative"),
        ({"out": "a", "dtype": object}, TypeError, "object"),
        ({"shape": 3}, TypeError, "out=key"),
        ({"dtype": "i4"}, TypeError, "out=key"),
    ],
)
def test_arguments_that_make_no_sense(
    engine: TheusEngine, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        engine.map(square, [1], **arguments)


def test_a_full_heap_is_told_before_anything_runs() -> None:
    with (
        TheusEngine(workers=1, heap=8 << 20) as engine,
        pytest.raises(theus.HeapFull, match="results"),
    ):
        engine.map(square, range(4_000_000), out="results")
