"""Small arrays share segments: what that saves, and that each is still an array of its own."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theus
from conftest import EngineFactory
from polling import until
from programs import started
from theus import DELETE, HeapFull, TheusEngine

MANY = 100_000

MANY_UNDER_A_LOW_LIMIT = f"""
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import numpy as np
from theus import DELETE, TheusEngine

def holdings():
    with open("/proc/self/maps") as maps:
        return len(os.listdir("/proc/self/fd")), sum("memfd:" in line for line in maps)

def look(ctx, keys):
    return [float(ctx.heavy[key].sum()) for key in keys], *holdings()

def content(i):
    return np.full(1 + i % 100, i, np.float64)

if __name__ == "__main__":
    with TheusEngine(workers=1) as engine:
        look_before = engine.run(look, [])
        before = holdings()
        for i in range({MANY}):
            engine.heavy.put(f"k{{i}}", content(i))
            if i % 5000 == 0:
                print(i, flush=True)
        print("host", *holdings(), *before, flush=True)
        assert len(engine.heavy) == {MANY}
        sample = range(0, {MANY}, 97)
        keys = [f"k{{i}}" for i in sample]
        sums, *there = engine.run(look, keys)
        assert sums == [content(i).sum() for i in sample]
        print("worker", *there, *look_before[1:], flush=True)
        kept = engine.heavy["k7"]
        engine.compare_and_swap(engine.state.version, heavy=dict.fromkeys(engine.heavy, DELETE))
        assert kept.tolist() == [7.0] * 8
        del kept
        engine.reap()
        print("bytes", engine.stats()["memory"]["in_use"], flush=True)
"""


def test_many_need_few_descriptors_and_mappings(tmp_path: Path) -> None:
    program = tmp_path / "many.py"
    program.write_text(MANY_UNDER_A_LOW_LIMIT)
    told: dict[str, list[int]] = {}
    with started([str(program)], cwd=tmp_path) as running:
        while line := running.line():
            name, *numbers = line.split()
            told[name] = [int(number) for number in numbers]
        ended = running.end()
    assert ended.code == 0, ended.err
    for place in ("host", "worker"):
        descriptors, maps, descriptors_before, maps_before = told[place]
        assert descriptors - descriptors_before <= 30, "one for each arena of up to 4 MiB"
        assert maps - maps_before <= 60, "two for each"
    assert told["bytes"] == [0]


def test_each_is_an_array_of_its_own(engine: TheusEngine) -> None:
    for i in range(20):
        engine.heavy.put(f"k{i}", np.full(i, i))
    assert engine.stats()["segments"] == 20
    assert engine.stats()["arenas"] == 1
    for i in range(20):
        array = engine.heavy[f"k{i}"]
        assert theus.is_shared(array)
        assert array.tolist() == [i] * i
        assert array.shm.size == array.nbytes


def test_what_is_written_after_publish_reaches_nobody(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("x", 100)
    array[:] = 1
    part, plain, raw = array[10:20], np.asarray(array), memoryview(array)
    array.publish()
    neighbour = engine.heavy.put("y", np.ones(100))
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 2
    plain[:] = 2  # numpy does not know, but it is the host's own memory by now
    raw[50] = 2.0
    assert engine.heavy["x"].tolist() == [1] * 100
    assert engine.run(lambda ctx: float(ctx.heavy["x"].sum())) == 100
    assert neighbour.tolist() == [1] * 100
    assert plain[0] == 2


def test_views_outlive_key_and_engine(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    written = engine.heavy.put("x", np.arange(10.0))
    view = engine.heavy["x"][2:4]
    engine.heavy.put("x", np.zeros(10))
    engine.close()
    gc.collect()
    assert written[9] == 9
    assert view.tolist() == [2, 3]


def give_back(first: Any, second: Any) -> Any:
    """What it was given, in another order, with a view, a view of nothing and something new."""
    return {"second": second, "first": first[1:], "empty": first[3:], "sum": first + second}


def test_references_to_arrays_of_one_arena(engine: TheusEngine) -> None:
    first = engine.heavy.put("first", np.arange(3.0))
    engine.heavy.put("between", np.zeros(3))
    second = engine.heavy.put("second", np.arange(3.0, 6))
    result = engine.run(give_back, first, second[:])
    assert result["second"].tolist() == [3, 4, 5]
    assert result["first"].tolist() == [1, 2]
    assert result["empty"].tolist() == []
    assert result["sum"].tolist() == [3, 5, 7]
    assert theus.is_shared(result["second"]), "it did not travel by value"
    engine.heavy["again"] = result["second"]
    assert engine.heavy["again"].tolist() == [3, 4, 5]
    # A view from the arena, an array that the host wrote, and what came of a result.
    mixed = engine.run(give_back, engine.heavy["first"], result["second"])
    assert mixed["sum"].tolist() == [3, 5, 7]


def read_and_make(ctx: Any, keys: list[str]) -> Any:
    """Arrays that it read and arrays that it made, all mixed."""
    made = []
    for key in keys:
        out = ctx.heavy.alloc("out", 5)
        out[:] = ctx.heavy[key]
        made += [ctx.heavy[key], out, out[1:3]]
    return made


def test_results_mix_what_was_read_and_what_was_made(engine: TheusEngine) -> None:
    for i in range(5):
        engine.heavy.put(f"k{i}", np.full(5, i))
    for keys in (["k3", "k1", "k3", "k4"], ["k0", "k4"]):
        result = engine.run(read_and_make, keys)
        for number, key in enumerate(keys):
            want = [int(key[1:])] * 5
            read, made, part = result[3 * number : 3 * number + 3]
            assert read.tolist() == made.tolist() == want
            assert part.tolist() == want[1:3]
            assert theus.is_shared(read)
            assert theus.is_shared(made)


def make_one(ctx: Any, i: int) -> Any:
    out = ctx.heavy.alloc("out", 10)
    out[:] = i
    return out


def test_outputs_of_workers_share_arenas(engine: TheusEngine) -> None:
    results = list(engine.map(make_one, range(300)))
    assert [array[0] for array in results] == list(range(300))
    stats = engine.stats()
    assert stats["arenas"] == 1
    assert stats["segments"] >= 300
    engine.compare_and_swap(0, heavy={f"k{i}": array for i, array in enumerate(results)})
    del results
    gc.collect()
    assert engine.run(lambda ctx: float(ctx.heavy["k299"].sum())) == 2990
    until(lambda: engine.stats()["segments"] == 300, "the segments that workers wrote to be gone")
    assert engine.stats()["arenas"] == 1


def test_all_go_together_with_their_arena(engine: TheusEngine) -> None:
    for i in range(100):
        engine.heavy.put(f"k{i}", np.ones(1000))
    assert engine.run(lambda ctx: float(ctx.heavy["k99"].sum())) == 1000
    engine.compare_and_swap(100, heavy={f"k{i}": DELETE for i in range(100)})
    until(lambda: engine.stats()["memory"]["in_use"] == 0, "the arenas to be given back")
    assert engine.stats()["segments"] == 0


def test_a_heap_full_of_small_arrays_says_so(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1, heap="4MB")

    def fill() -> None:
        for i in range(1000):
            engine.heavy.put(f"k{i}", np.ones(1000))

    with pytest.raises(HeapFull) as caught:
        fill()
    error = caught.value
    assert error.asked <= 64 << 10, "it is about that array, not about an arena"
    assert "small arrays" in str(error)
    assert error.holders[0]["arrays"] > 300
    assert engine.heavy["k0"].tolist() == [1] * 1000
    engine.compare_and_swap(engine.state.version, heavy=dict.fromkeys(engine.heavy, DELETE))
    engine.heavy.put("after", np.ones(1000))
