"""engine.heavy: making, publishing, reading and removing shared arrays."""

from __future__ import annotations

import datetime
import gc
import os
import signal
import threading
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import theus
from conftest import EngineFactory
from polling import until
from theus import (
    ContextError,
    HeapFull,
    ShmArray,
    StatelessnessError,
    TheusEngine,
)
from theus.arrays import memory_of


def total(ctx: Any, key: str) -> float:
    return float(ctx.heavy[key].sum())


def test_what_is_allocated_is_seen_once_it_is_published(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("x", (3, 4), np.float32)
    assert isinstance(array, ShmArray)
    assert not array.any(), "zeroed"
    assert engine.heavy.get("x") is None
    assert "x" not in engine.heavy
    with pytest.raises(KeyError, match="allocated but not published"):
        engine.heavy["x"]
    array[:] = 2
    state = array.publish()
    assert state.version == 1
    assert engine.heavy["x"].tolist() == array.tolist()
    assert engine.heavy.x.dtype == np.float32
    assert list(engine.heavy) == ["x"]
    assert engine.run(total, "x") == 24


def test_publishing_freezes_for_real(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("x", 8)
    part, plain, view = array[2:5], np.asarray(array), memoryview(array)
    array[:] = 1
    array.publish()
    with pytest.raises(ValueError, match=r"heavy\['x'\].*engine\.heavy\.edit\('x'\)"):
        array[0] = 9
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 9
    with pytest.raises(ValueError, match="read-only|WRITEABLE"):
        array.setflags(write=True)
    plain[0] = 9  # numpy does not know, but nobody else sees it
    view[1] = 9.0
    assert engine.heavy["x"].tolist() == [1] * 8
    assert engine.run(total, "x") == 8


def test_a_swap_publishes_under_any_key(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("draft", 4)
    array[:] = 3
    state = engine.compare_and_swap(0, data={"n": 1}, heavy={"final.key": array})
    assert list(state.heavy) == ["final.key"]
    assert array.shm.name == "theus-use-ctx.heavy-final.key"
    again = engine.compare_and_swap(state.version, heavy={"alias": array})
    assert theus.is_shared(again.heavy["alias"])
    assert engine.stats()["segments"] == 1, "one memory under two keys"


def test_plain_arrays_and_slices_are_copied_in(engine: TheusEngine) -> None:
    source = np.arange(6.0).reshape(2, 3)
    published = engine.heavy.put("whole", source)
    state = engine.compare_and_swap(1, heavy={"copy": source, "part": published[:, 1:]})
    source[:] = 0
    assert state.heavy["copy"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state.heavy["part"].tolist() == [[1, 2], [4, 5]]
    with pytest.raises(TypeError, match="DELETE"):
        engine.compare_and_swap(2, heavy={"copy": None})
    with pytest.raises(TypeError, match=r"heavy= takes a dict of keys and arrays, not numpy"):
        engine.compare_and_swap(2, heavy=source)  # type: ignore[arg-type]
    assert list(engine.compare_and_swap(2, heavy={"copy": theus.DELETE}).heavy) == ["part", "whole"]


def test_arrays_of_another_engine_are_copied(make_engine: EngineFactory) -> None:
    one, other = make_engine(workers=1), make_engine(workers=1)
    array = one.heavy.put("x", [1.0, 2.0])
    other.heavy["x"] = array
    del array
    one.close()
    assert other.heavy["x"].tolist() == [1, 2]


def test_conflicts_name_the_key(engine: TheusEngine) -> None:
    engine.heavy.put("x", [1])
    late = engine.heavy.alloc("x", 1)
    with pytest.raises(ContextError) as caught:
        engine.compare_and_swap(0, heavy={"x": late})
    assert caught.value.conflicts == (theus.Conflict("x", 1, True),)
    late[:] = 5  # still under construction
    late.publish()
    assert engine.heavy["x"].tolist() == [5]


def test_edit_makes_the_next_version(engine: TheusEngine) -> None:
    first = engine.heavy.put("x", np.arange(4.0))
    with engine.heavy.edit("x") as array:
        array += 10
        assert engine.heavy["x"].tolist() == [0, 1, 2, 3], "not yet"
    assert engine.heavy["x"].tolist() == [10, 11, 12, 13]
    assert first.tolist() == [0, 1, 2, 3], "earlier versions stay"
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    blank = engine.heavy.edit("x", blank=True)
    assert blank.shape == (4,)
    blank[:] = 7
    blank.publish()
    assert engine.heavy["x"].tolist() == [7] * 4


def test_an_edit_that_fails_is_dropped(engine: TheusEngine) -> None:
    engine.heavy.put("x", [1.0])
    with pytest.raises(ZeroDivisionError), engine.heavy.edit("x") as array:
        array[0] = 1 / 0
    assert engine.heavy["x"].tolist() == [1]
    assert engine.state.version == 1
    with pytest.raises(KeyError, match="did you mean 'x'"):
        engine.heavy.edit("xx")


def test_live_arrays_are_seen_as_they_change(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("x", 4, live=True)
    array.publish()
    assert engine.run(total, "x") == 0
    array[:] = 2
    assert engine.run(total, "x") == 8


@pytest.mark.parametrize("order", ["C", "F"])
def test_order(engine: TheusEngine, order: Any) -> None:
    array = engine.heavy.alloc("x", (2, 3), order=order)
    assert array.flags.c_contiguous is (order == "C")
    array[:] = [[1, 2, 3], [4, 5, 6]]
    array.publish()
    assert engine.heavy["x"].flags.f_contiguous is (order == "F")
    assert engine.run(lambda ctx: ctx.heavy["x"].tolist()) == [[1, 2, 3], [4, 5, 6]]
    assert engine.heavy.put("y", np.asfortranarray(np.eye(3)[:2])).flags.f_contiguous


DTYPES = [
    np.dtype(bool),
    np.dtype("int8"),
    np.dtype(">i4"),
    np.dtype("float16"),
    np.dtype("complex128"),
    np.dtype("U7"),
    np.dtype("S3"),
    np.dtype("M8[ns]"),
    np.dtype([("a", "<f8"), ("b", "<i4", (2,))]),
    np.dtype({"names": ["a"], "formats": ["<f8"], "offsets": [8], "itemsize": 24}),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_of_a_fixed_size(engine: TheusEngine, dtype: np.dtype[Any]) -> None:
    source = np.zeros(3, dtype)
    array = engine.heavy.put("x", source)
    assert array.dtype == dtype
    assert engine.heavy["x"].tobytes() == source.tobytes()


def test_odd_shapes(engine: TheusEngine) -> None:
    assert engine.heavy.alloc("zero", (0, 3)).publish().heavy["zero"].shape == (0, 3)
    assert engine.heavy.alloc("scalar", ()).shape == ()
    assert engine.heavy.alloc("int", np.int64(5)).shape == (5,)
    assert engine.heavy.alloc("inner", 2, ("f4", (3,))).shape == (2, 3)
    with pytest.raises(ValueError, match="negative"):
        engine.heavy.alloc("x", (-1,))
    with pytest.raises(ValueError, match="shape|large|overflow"):
        engine.heavy.alloc("x", (2**62, 2**62))
    with pytest.raises(ValueError, match="32|ndim|dimension"):
        engine.heavy.alloc("x", (1,) * 33)
    for shape in (1.5, (1.5,), None, ("3",)):
        with pytest.raises(TypeError, match="shape must be a whole number or a tuple of them"):
            engine.heavy.alloc("x", shape)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order"):
        engine.heavy.alloc("x", 1, order="K")  # type: ignore[arg-type]


def test_objects_cannot_be_shared(engine: TheusEngine) -> None:
    with pytest.raises(TypeError, match="fixed-size text"):
        engine.heavy.alloc("x", 3, object)
    with pytest.raises(TypeError, match="fixed-size text"):
        engine.heavy.put("x", [1, "a", None])
    with pytest.raises(TypeError, match=r"heavy\['x'\]: a dict is no array.*compare_and_swap"):
        engine.heavy.put("x", {"a": 1})
    with pytest.raises(TypeError, match="a NoneType is no array"):
        engine.heavy.put("x", None)
    with pytest.raises(StatelessnessError, match=r"heavy\['x'\] is a _thread.lock"):
        engine.heavy.put("x", threading.Lock())
    with pytest.raises(StatelessnessError, match=r"heavy\['x'\]\[1\] is a _thread.lock"):
        engine.heavy.put("x", [1, threading.Lock()])


def test_keys_are_literal_names(engine: TheusEngine) -> None:
    engine.heavy.put("a.b\\c é", [1])
    assert list(engine.heavy) == ["a.b\\c é"]
    assert engine.run(lambda ctx: ctx.heavy["a.b\\c é"][0]) == 1
    for bad in ("", "a\0b"):
        with pytest.raises(ValueError, match="key"):
            engine.heavy.put(bad, [1])
    with pytest.raises(TypeError, match="must be a string"):
        engine.heavy.alloc(3, 1)  # type: ignore[arg-type]


def test_data_frames(engine: TheusEngine) -> None:
    numbers = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert engine.heavy.put("numbers", numbers).tolist() == [[1, 0.5], [2, 1.5]]
    day = datetime.datetime(2020, 1, 1)
    mixed = pd.DataFrame({"n": [1, 2], "ok": [True, False], "day": [day, day]})
    table = engine.heavy.put("mixed", mixed)
    assert table.dtype.names == ("n", "ok", "day")
    assert table["n"].tolist() == [1, 2]
    text = pd.DataFrame({"n": [1], "name": ["x"]})
    with pytest.raises(TypeError, match="name"):
        engine.heavy.put("text", text)
    assert engine.heavy.put("series", pd.Series([1, 2])).tolist() == [1, 2]


def test_item_assignment_and_removal(engine: TheusEngine) -> None:
    engine.heavy["x"] = np.arange(3)
    array = engine.heavy.alloc("y", 2)
    engine.heavy["y"] = array
    assert sorted(engine.heavy) == ["x", "y"]
    assert not array.flags.writeable
    state = engine.state
    del engine.heavy["x"]
    assert "x" not in engine.heavy
    assert state.heavy["x"].tolist() == [0, 1, 2]
    with pytest.raises(KeyError, match="'x'"):
        del engine.heavy["x"]
    with pytest.raises(AttributeError, match=r"heavy\['z'\] = array"):
        engine.heavy.z = [1]


def test_a_full_heap_is_an_error_that_helps(make_engine: EngineFactory) -> None:
    engine = make_engine(heap="8MB", workers=1)
    kept = engine.heavy.put("kept", np.zeros(3 << 17))
    with pytest.raises(HeapFull) as caught:
        engine.heavy.alloc("more", 1 << 20)
    error = caught.value
    assert error.asked == 8 << 20
    assert error.limit == 8 << 20
    assert error.in_use >= kept.nbytes
    assert error.source == "heap="
    assert "kept" in str(error)
    assert engine.heavy.alloc("fits", 1 << 10).shape == (1024,)


def test_memory_held_by_cycles_is_found(make_engine: EngineFactory) -> None:
    engine = make_engine(heap="8MB", workers=1)
    gc.disable()
    try:
        for i in range(4):
            cycle: list[Any] = [engine.heavy.alloc(f"k{i}", 5 << 17)]
            cycle.append(cycle)
            del cycle
    finally:
        gc.enable()


def test_an_argument_takes_the_room_of_what_cycles_hold(make_engine: EngineFactory) -> None:
    engine = make_engine(heap="8MB", workers=1)
    gc.disable()
    try:
        cycle: list[Any] = [engine.heavy.alloc("x", 5 << 20, np.uint8)]
        cycle.append(cycle)
        del cycle
        assert engine.run(len, bytes(5 << 20)) == 5 << 20
    finally:
        gc.enable()


def test_a_function_takes_the_room_of_what_cycles_hold(make_engine: EngineFactory) -> None:
    engine = make_engine(heap="8MB", workers=1)
    captured = bytes(5 << 20)
    gc.disable()
    try:
        cycle: list[Any] = [engine.heavy.alloc("x", 5 << 20, np.uint8)]
        cycle.append(cycle)
        del cycle
        assert engine.run(lambda: len(captured)) == 5 << 20
    finally:
        gc.enable()


def test_views_outlive_the_engine(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    array = engine.heavy.put("x", np.arange(1000.0))
    part = engine.heavy["x"][10:20]
    engine.close()
    del engine
    gc.collect()
    assert part.sum() == 145
    assert np.asarray(array)[-1] == 999


def test_the_words_of_shared_memory(engine: TheusEngine) -> None:
    array = engine.heavy.put("large_dataset", np.zeros(10))
    assert array.shm.size == 80
    array.shm.close()
    assert array.sum() == 0
    with pytest.raises(PermissionError, match="theus"):
        array.shm.unlink()
    with pytest.raises(FileNotFoundError, match="theus-use-ctx.heavy-large_dataset"):
        shared_memory.SharedMemory(name=array.shm.name)


def test_cleanup_removes_nothing_that_is_used(engine: TheusEngine) -> None:
    engine.heavy.put("x", [1.0])
    assert set(engine.heavy.cleanup()) == {"segments", "bytes", "handles", "processes"}
    assert engine.heavy["x"].tolist() == [1]


def test_a_worker_sees_all_keys_however_many(engine: TheusEngine) -> None:
    value = np.zeros(1)
    names = [f"key {number:04}" for number in range(120)]
    engine.compare_and_swap(0, heavy=dict.fromkeys(names, value))

    def keys(ctx: Any) -> list[str]:
        return list(ctx.heavy)

    assert engine.run(keys) == names


@pytest.mark.parametrize("length", [1000, 1 << 18], ids=["in an arena", "in a segment"])
def test_an_output_that_somebody_can_still_write_is_copied(
    engine: TheusEngine, tmp_path: Path, length: int
) -> None:
    def leave_a_writer_behind(ctx: Any, length: int, place: str) -> ShmArray:
        import os
        import signal

        out = ctx.heavy.alloc("y", length)
        out[:] = 5
        child = os.fork()  # maps the output, and may write it for as long as it lives
        if child == 0:
            os.open(f"{place}/gate", os.O_RDONLY)
            out[:] = 9
            os.close(os.open(f"{place}/written", os.O_CREAT))
            signal.pause()
        out[0] = child
        return out  # type: ignore[no-any-return]

    os.mkfifo(tmp_path / "gate")
    array = engine.run(leave_a_writer_behind, length=length, place=str(tmp_path))
    child = int(array[0])
    try:
        engine.compare_and_swap(0, heavy={"y": array})
        assert array[1:].tolist() == [5] * (length - 1)
        os.close(os.open(tmp_path / "gate", os.O_WRONLY))
        until((tmp_path / "written").exists, "the child to have written")
        assert array[0] == child
        assert array[1:].tolist() == [5] * (length - 1)
        assert engine.run(total, "y") == child + 5 * (length - 1)
    finally:
        os.kill(child, signal.SIGKILL)


def test_an_array_of_another_engine_is_refused_with_a_way_out(
    engine: TheusEngine, make_engine: EngineFactory
) -> None:
    other = make_engine(workers=1)
    foreign = other.heavy.put("x", [1.0])
    with pytest.raises(ValueError, match=r"another engine.*engine\.heavy\.put"):
        engine.run(len, foreign)
    assert engine.run(len, np.array(foreign)) == 1


def give_published(ctx: Any, key: str) -> Any:
    return ctx.heavy[key][1:]


def give_new(ctx: Any) -> Any:
    array = ctx.heavy.alloc("made", 1 << 17)
    array[:] = 3.0
    return array


def origin(array: Any) -> Any:
    memory = memory_of(array)
    assert memory is not None
    return memory.origin


def test_a_result_knows_in_which_version_it_was_published(engine: TheusEngine) -> None:
    engine.heavy.put("x", np.ones(1 << 17))
    published = engine.state.version
    engine.heavy.put("y", [1.0])
    given = engine.run(give_published, key="x")
    assert origin(given).version == published < engine.state.version
    made = engine.run(give_new)
    assert origin(made).version == 0, "in none, yet"
    engine.compare_and_swap(engine.state.version, heavy={"made": made})
    assert origin(engine.heavy["made"]).version == engine.state.version


def _read(ctx: Any, length: int) -> Any:
    return float(ctx.heavy["k" * length][0])


def _allocate(ctx: Any, length: int) -> Any:
    return ctx.heavy.alloc("k" * length, 1)


def test_a_key_has_at_most_4096_bytes(engine: TheusEngine) -> None:
    engine.heavy.put("k" * 4096, [1.0])
    assert engine.run(_read, 4096) == 1.0
    with pytest.raises(ValueError, match="has 4097 bytes, more than 4096"):
        engine.heavy.put("k" * 4095 + "é", [1.0])
    with pytest.raises(ValueError, match="has 4,097 letters, more than 4096"):
        engine.run(_allocate, 4097)


def test_a_key_that_no_frame_holds_costs_no_worker(engine: TheusEngine) -> None:
    with pytest.raises(KeyError):
        engine.run(_read, 70_000)
    with pytest.raises(KeyError):
        engine.run(lambda ctx: ctx.state.data["k" * 70_000])
    assert sum(worker["tasks"] for worker in engine.stats()["workers"]) == 2
