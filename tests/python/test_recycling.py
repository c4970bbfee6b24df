"""Memory of arrays is used again, and nobody who has seen it ever sees that."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

import jobs
from polling import until
from theus import DELETE, TheusEngine

# `make churn` makes it longer.
SECONDS = float(os.environ.get("TEST_CHURN_SECONDS", "5"))
ROUNDS = 60


class Arrays(NamedTuple):
    """Of what sizes, under how many keys, and what must have become of their memory."""

    lengths: tuple[int, ...]
    keys: int
    counts: tuple[str, ...]


SMALL = Arrays((0, 1, 100, 3000, 20_000), 200, ("recycled", "moved"))
LARGE = Arrays((1 << 20, (2 << 20) + 5, 3 << 20), 8, ("recycled",))

kept: list[tuple[Any, int]] = []  # in a worker: arrays that outlive their task, and their checksums


def hold_and_check(ctx: Any, keys: list[str], sums: list[int], seed: int, most: int) -> int:
    """Check what earlier tasks kept, then keep some of what this one reads."""
    for array, checksum in kept:
        assert jobs.checksum(array) == checksum, "an array changed after its task"
    for key, checksum in zip(keys, sums, strict=True):
        array = ctx.heavy[key]
        assert jobs.checksum(array) == checksum, f"{key} is not what was published"
        kept.append((array[:], checksum))
    random.Random(seed).shuffle(kept)
    del kept[most:]
    return len(kept)


@pytest.mark.parametrize("arrays", [SMALL, LARGE], ids=["small", "large"])
def test_old_snapshots_and_views_never_change(engine: TheusEngine, arrays: Arrays) -> None:
    rng = random.Random(1)
    content: dict[str, int] = {}  # checksums of the current version
    snapshots: list[tuple[Any, dict[str, int]]] = []
    views: list[tuple[np.ndarray[Any, Any], int]] = []
    deadline = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < deadline or rounds < ROUNDS or not _done(engine, arrays):
        rounds += 1
        assert rounds < 100 * ROUNDS + 100 * SECONDS, "nothing is ever used again"
        replaced: dict[str, Any] = {}
        for key in rng.sample(range(arrays.keys), rng.choice((1, arrays.keys // 8, arrays.keys))):
            array = engine.heavy.alloc(f"k{key}", rng.choice(arrays.lengths), np.uint8)
            assert not array.any(), "it is not zeroed"
            array[:] = rng.randrange(1, 256)
            replaced[f"k{key}"] = array
        engine.compare_and_swap(engine.state.version, heavy=replaced)
        content.update({key: jobs.checksum(array) for key, array in replaced.items()})
        if rng.random() < 0.3:  # what is left must not keep its arenas
            gone = rng.sample(sorted(content), len(content) * 9 // 10)
            engine.compare_and_swap(engine.state.version, heavy=dict.fromkeys(gone, DELETE))
            for key in gone:
                del content[key]
        del replaced
        if content:
            key = rng.choice(sorted(content))
            views.append((np.asarray(engine.heavy[key]), content[key]))
        snapshots.append((engine.state, dict(content)))
        rng.shuffle(snapshots)
        rng.shuffle(views)
        del snapshots[rng.choice((0, 2, 4)) :], views[rng.choice((0, 10, 30)) :]
        sample = rng.sample(sorted(content), min(5, len(content)))
        sums = [content[key] for key in sample]
        engine.run(hold_and_check, sample, sums, rounds, rng.choice((0, 3, 20)))
        for array, checksum in views:
            assert jobs.checksum(array) == checksum, "a view changed"
        for state, sums_then in snapshots:
            for key, checksum in sums_then.items():
                assert jobs.checksum(state.heavy[key]) == checksum, "a snapshot changed"
    assert _done(engine, arrays)


def _done(engine: TheusEngine, arrays: Arrays) -> bool:
    memory = engine.stats()["memory"]
    return all(memory[count] > 0 for count in arrays.counts)


@pytest.mark.parametrize("length", [5000, 500_000])
def test_memory_is_used_again_once_workers_have_let_go(engine: TheusEngine, length: int) -> None:
    def come_and_go() -> bool:
        engine.heavy.put("a", np.full(length, 1.0))
        assert engine.run(jobs.read_all, "a")["checksum"]
        del engine.heavy["a"]
        until(lambda: engine.stats()["segments"] == 0, "the array to go")
        until(lambda: engine.stats()["memory"]["retiring"] == 0, "the worker to let go")
        return bool(engine.stats()["memory"]["recycled"])

    until(come_and_go, "its memory to be used again")


def test_each_generation_of_a_large_array_uses_the_memory_of_the_one_before_the_last(
    engine: TheusEngine,
) -> None:
    for generation in range(10):
        engine.heavy.put("a", np.full(500_000, generation))
    assert engine.heavy["a"].tolist() == [9] * 500_000
    until(lambda: engine.stats()["segments"] == 1, "older generations to go")
    memory = engine.stats()["memory"]
    assert memory["recycled"] >= 5
    assert memory["in_use"] < 5_000_000


def allocate(ctx: Any, length: int, value: float | None) -> Any:
    array = ctx.heavy.alloc("result", length)
    if value is not None:
        array[:] = value
    return array


def test_what_a_worker_allocates_is_zeroed(engine: TheusEngine) -> None:
    def used_again() -> bool:
        assert not engine.run(allocate, 500_000, None).any()
        assert engine.run(allocate, 500_000, 7.0).tolist() == [7.0] * 500_000
        return bool(engine.stats()["memory"]["recycled"] > 3)

    until(used_again, "memory of results to be used again")


def test_a_result_that_is_kept_never_changes(engine: TheusEngine) -> None:
    kept = [engine.run(allocate, 500_000, float(n)) for n in range(5)]
    kept += [engine.run(np.full, 500_000, float(n)) for n in range(5, 10)]
    engine.heavy.put("published", kept[0])
    for n in range(20):
        del kept[n % len(kept)]
        kept.append(engine.run(allocate, 500_000, float(n)))
        assert all(array.min() == array.max() for array in kept)
    assert not engine.heavy["published"].any()


def test_without_zeros_the_content_may_be_an_older_one(engine: TheusEngine) -> None:
    engine.heavy.put("a", np.full(500_000, 7.0))
    del engine.heavy["a"]
    until(lambda: engine.stats()["memory"]["free_list"] > 0, "the array to go")
    array = engine.heavy.alloc("b", 500_000, zero=False)
    assert engine.stats()["memory"]["recycled"] == 1
    assert array[0] == 7.0
    del array
    assert not engine.heavy.alloc("b", 500_000).any()


@pytest.mark.parametrize("length", [10, 500_000])
def test_what_is_kept_is_given_back_when_it_is_not_needed(engine: TheusEngine, length: int) -> None:
    engine.heavy.put("a", np.zeros(length))
    del engine.heavy["a"]
    until(lambda: engine.stats()["segments"] == 0, "the array to go")
    until(lambda: engine.stats()["memory"]["free_list"] == 0, "it to be given back")
    engine.heavy.put("a", np.zeros(length))
    del engine.heavy["a"]
    engine.reap()
    assert engine.stats()["memory"]["free_list"] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("length", [1000, 500_000])
def test_nothing_is_used_again_that_a_child_of_the_host_maps(
    engine: TheusEngine, length: int
) -> None:
    engine.heavy.put("a", np.full(length, 1.0))
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        del engine.heavy["a"]
        until(lambda: engine.stats()["segments"] == 0, "the array to go")
        memory = engine.stats()["memory"]
        assert memory["free_list"] == 0
        engine.heavy.put("a", np.full(length, 2.0))
        assert engine.stats()["memory"]["recycled"] == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# Between the count of a fork and the fork other handlers run, and other threads: what is mapped
# then is the child's as well.
ALLOCATES_WHILE_IT_FORKS = """
import ctypes, gc, os, signal
import numpy as np
from theus import TheusEngine

engine = None
made = []

@ctypes.CFUNCTYPE(None)
def prepare():
    if engine is not None and not made:
        made.append(engine.heavy.alloc("a", 500_000))

# Before theus registers its own: handlers of before a fork run in the opposite order.
ctypes.CDLL(None).__register_atfork(prepare, None, None, None)
with TheusEngine(workers=1) as engine:
    engine.heavy.put("first", np.zeros(10))
    child = os.fork()
    if child == 0:
        signal.pause()
    made.pop().publish()
    del engine.heavy["a"]
    gc.collect()
    while engine.stats()["segments"] > 1:
        pass
    engine.heavy.put("b", np.full(500_000, 2.0))
    print(engine.stats()["memory"]["recycled"])
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_nothing_is_used_again_that_was_made_while_the_host_forked() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", ALLOCATES_WHILE_IT_FORKS],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")


def test_one_survivor_does_not_keep_its_arena(engine: TheusEngine) -> None:
    count = 600
    for i in range(count):
        engine.heavy.put(f"k{i}", np.full(1000, i))
    assert engine.run(lambda ctx: int(ctx.heavy["k5"][0])) == 5
    state = engine.state
    engine.compare_and_swap(
        state.version, heavy={f"k{i}": DELETE for i in range(count) if i % 100 != 5}
    )
    del state
    until(
        lambda: engine.reap() is not None and engine.stats()["arenas"] == 1,
        "the arenas of few survivors to be given back, but for the one that is filled now",
    )
    memory = engine.stats()["memory"]
    assert memory["moved"] >= 1
    for i in range(5, count, 100):
        assert engine.heavy[f"k{i}"].tolist() == [i] * 1000
        assert engine.run(lambda ctx, i: int(ctx.heavy[f"k{i}"].sum()), i) == i * 1000
