"""Arrays live as long as anything reads them: random programs against a model of plain numpy.

`make test` runs a few examples, `make lifetime EXAMPLES=10000 SEED=7` as many as it is told. After
each step every view that is alive equals its twin, and no finalizer has failed; after each example
no shared memory is left.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import lifetime_jobs as jobs
from lifetime_forks import fork_and_look
from lifetime_jobs import look, pattern
from lifetime_model import DERIVATIONS, Bytes, View
from long_machines import long_settings
from polling import until
from theus import ContextError, EngineClosed, SegmentGone, ShmArray, TheusEngine

EXAMPLES = int(os.environ.get("LIFETIME_EXAMPLES", "40"))
SEED = int(os.environ.get("LIFETIME_SEED", "1"))
ENOUGH = 200  # examples, for each rule to be tried
STEPS = 30
MOST_VIEWS = 12
PATIENCE = 120.0  # seconds; a loaded machine lets a worker wait before it says what it let go of

SHAPES = [(), (0,), (1,), (7,), (3, 4), (2, 3, 2), (2, 0, 3), (1, 5), (600, 3)]
LARGE = 1 << 20  # bytes; from there on an array has a segment of its own
DTYPES: list[Any] = [
    *("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"),
    *("S5", "U3", "V3", "M8[ns]", "m8[s]", ">i4"),
    [("a", "f8"), ("b", "i4")],
]

shapes = st.sampled_from(SHAPES)
dtypes = st.sampled_from(DTYPES)
keys = st.sampled_from(["k0", "k1", "k2"])
numbers = st.integers(0, 10_000)

hits: collections.Counter[str] = collections.Counter()


def numpy_reads_back(view: memoryview, dtype: np.dtype[Any]) -> bool:
    """Whether numpy takes its own description of what is not a plain number for the same dtype.

    It reads V3 back as a structure without fields. A packed structure that happens to lie aligned,
    as a single one does, it describes with native alignment, and then misses the padding.
    """
    if dtype.kind != "V":
        return True
    try:
        return np.asarray(view).dtype == dtype
    except RuntimeError:
        return False


def step(when: Callable[[Machine], Any] = lambda _: True, **draws: Any) -> Any:
    """A rule that is counted."""

    def decorate(method: Callable[..., None]) -> Any:
        hits[method.__name__] = 0

        @functools.wraps(method)
        def call(self: Machine, **drawn: Any) -> None:
            hits[method.__name__] += 1
            self.failed = True
            method(self, **drawn)
            self.failed = False

        return precondition(when)(rule(**draws)(call))

    return decorate


class Machine(RuleBasedStateMachine):
    """One random program."""

    engine: ClassVar[TheusEngine]
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.views: list[View] = []
        self.building: list[tuple[View, str]] = []
        self.published: dict[str, Bytes] = {}
        self.snapshots: list[tuple[Any, dict[str, Bytes]]] = []
        self.kept: dict[str, Bytes] = {}
        self.may_close = False
        self.failed = False
        self.unraisable: list[str] = []
        self.hook = sys.unraisablehook

    @initialize(chance=st.integers(0, 9))
    def begin(self, chance: int) -> None:
        Machine.examples += 1
        self.may_close = chance > 6  # a new engine takes longer than all else
        sys.unraisablehook = lambda what: self.unraisable.append(f"{what.exc_value!r}: {what}")
        self.maps = maps_of_segments()

    # -- making --------------------------------------------------------------------------------

    @step(key=keys, shape=shapes, dtype=dtypes, order=st.sampled_from("CF"), live=st.booleans())
    def alloc(self, key: str, shape: Any, dtype: Any, order: Any, live: bool) -> None:
        real = self.engine.heavy.alloc(key, shape, dtype, order=order, live=live)
        self.build(real, Bytes(dtype, shape, order, live=live, owner=self.engine), key)

    @step(key=keys, seed=st.integers(0, 3))
    def put_large(self, key: str, seed: int) -> None:
        if seed == 0:  # every view of it is compared after every step
            self.put(key=key, shape=(LARGE // 8,), dtype="f8", seed=seed)

    @step(lambda self: self.published, key=numbers, seed=numbers)
    def edit(self, key: int, seed: int) -> None:
        name = self.some_key(key)
        self.build(self.engine.heavy.edit(name), self.copy_of(name), name)

    @step(lambda self: self.published, key=numbers, seed=numbers)
    def edit_blank(self, key: int, seed: int) -> None:
        name = self.some_key(key)
        view = self.build(self.engine.heavy.edit(name, blank=True), self.copy_of(name), name)
        for array in (view.real, view.twin):
            array[...] = pattern(view.twin.dtype, view.twin.shape, seed)

    @step(lambda self: self.published, key=numbers, seed=numbers, fails=st.booleans())
    def edit_in_a_block(self, key: int, seed: int, fails: bool) -> None:
        name = self.some_key(key)
        memory = self.copy_of(name)
        with contextlib.suppress(ZeroDivisionError), self.engine.heavy.edit(name) as real:
            view = self.see(real, memory)
            for array in (view.real, view.twin):
                array[...] = pattern(view.twin.dtype, view.twin.shape, seed)
            if fails:
                raise ZeroDivisionError
        if not fails:
            self.published[name] = memory.publish()

    @step(key=keys, shape=shapes, dtype=dtypes, seed=numbers)
    def put(self, key: str, shape: Any, dtype: Any, seed: int) -> None:
        memory = self.filled(dtype, shape, seed)
        real = self.engine.heavy.put(key, memory.twin)
        self.published[key] = memory.publish()
        self.see(real, memory)

    # -- writing and publishing ----------------------------------------------------------------

    @step(lambda self: self.views, which=numbers, seed=numbers)
    def write(self, which: int, seed: int) -> None:
        view = self.some(which)
        if isinstance(view.real, memoryview) or not view.twin.flags.writeable:
            return
        values = pattern(view.twin.dtype, view.twin.shape, seed)
        if view.writable:
            view.real[...] = values
            view.twin[...] = values
        else:
            with pytest.raises(ValueError, match="read-only"):
                view.real[...] = values

    @step(lambda self: self.building, which=numbers)
    def publish(self, which: int) -> None:
        view, key = self.building.pop(which % len(self.building))
        assert view.memory is not None
        if view.memory.owner is not self.engine:
            with pytest.raises(EngineClosed):
                view.real.publish()
            return
        view.real.publish()
        self.published[key] = view.memory.publish()
        assert view.real.flags.writeable == view.memory.live

    @step(lambda self: self.ours(), seed=numbers, stale=st.booleans())
    def publish_several(self, seed: int, stale: bool) -> None:
        """By compare-and-swap, together with a plain array; all or nothing."""
        version = self.engine.state.version
        chosen = {key: view for view, key in self.ours()}
        if stale:
            self.put(key=next(iter(chosen)), shape=(3,), dtype="f8", seed=seed)
        heavy: dict[str, Any] = {key: view.real for key, view in chosen.items()}
        plain = self.filled("f4", (5,), seed)
        heavy.setdefault("k2", plain.twin)
        if stale:
            with pytest.raises(ContextError):
                self.engine.compare_and_swap(version, heavy=heavy)
            return
        self.engine.compare_and_swap(version, heavy=heavy)
        if "k2" not in chosen:
            self.published["k2"] = plain.publish()
        for key, view in chosen.items():
            self.building.remove((view, key))
            assert view.memory is not None
            self.published[key] = view.memory.publish()

    @step(lambda self: self.views, which=numbers, key=keys)
    def publish_again(self, which: int, key: str) -> None:
        """An array that is published already, or what is left of one of an engine that is not."""
        view = self.some(which)
        if not isinstance(view.real, ShmArray) or view.memory is None or not view.memory.public:
            return
        self.engine.heavy[key] = view.real
        if view.is_whole() and view.memory.owner is self.engine:
            self.published[key] = view.memory.public
            return
        copy = Bytes(view.twin.dtype, view.twin.shape, owner=self.engine)
        copy.twin[...] = view.twin
        self.published[key] = copy.publish()

    @step(lambda self: self.published, key=numbers)
    def delete(self, key: int) -> None:
        name = self.some_key(key)
        del self.engine.heavy[name]
        del self.published[name]
        assert name not in self.engine.heavy

    # -- reading -------------------------------------------------------------------------------

    @step(lambda self: self.published, key=numbers)
    def get(self, key: int) -> None:
        name = self.some_key(key)
        self.see(self.engine.heavy[name], self.published[name])

    @step(lambda self: self.views, which=numbers, how=st.sampled_from(sorted(DERIVATIONS)))
    def derive(self, which: int, how: str) -> None:
        view = self.some(which)
        derive = DERIVATIONS[how]
        real = derive(np.asarray(view.real) if isinstance(view.real, memoryview) else view.real)
        self.views.append(View(real, derive(view.twin), view.memory))

    @step(lambda self: self.views, which=numbers)
    def as_memoryview(self, which: int) -> None:
        view = self.some(which)
        with contextlib.suppress(ValueError):  # a dtype that has no such format
            real = memoryview(view.real)
            if numpy_reads_back(real, view.twin.dtype):
                self.views.append(View(real, view.twin, view.memory))

    @step(lambda self: self.views, which=numbers)
    def through_dlpack(self, which: int) -> None:
        view = self.some(which)
        if isinstance(view.real, memoryview):
            return
        with contextlib.suppress(BufferError, ValueError, TypeError):  # dtypes, byte order
            self.views.append(View(np.from_dlpack(view.real), view.twin, view.memory))

    @step()
    def snapshot(self) -> None:
        self.snapshots.append((self.engine.state, dict(self.published)))

    @step(lambda self: self.snapshots, which=numbers)
    def read_a_snapshot(self, which: int) -> None:
        state, held = self.snapshots[which % len(self.snapshots)]
        assert sorted(state.heavy.keys()) == sorted(held)
        for key, memory in held.items():
            self.see(state.heavy[key], memory)

    @step(lambda self: self.views, which=numbers)
    def pickled(self, which: int) -> None:
        view = self.some(which)
        if isinstance(view.real, memoryview):
            return
        # With protocol 4 numpy forgets the byte order of an array without dimensions.
        data = pickle.dumps(view.real, protocol=5)
        if view.is_reference():
            assert len(data) < 1024
            with pytest.raises(SegmentGone, match="pickle numpy.array"):
                pickle.loads(data)
        else:
            self.views.append(View(pickle.loads(data), view.twin.copy(), None))

    # -- workers -------------------------------------------------------------------------------

    @step(lambda self: self.published, key=numbers)
    def read_in_a_worker(self, key: int) -> None:
        name = self.some_key(key)
        assert self.engine.run(jobs.look_at, name) == look(self.published[name].twin)

    @step(lambda self: self.published, key=numbers, seed=numbers)
    def write_to_a_private_copy(self, key: int, seed: int) -> None:
        name = self.some_key(key)
        twin = self.published[name].twin
        written, seen = self.engine.run(jobs.write_privately, name, seed)
        assert written == look(pattern(twin.dtype, twin.shape, seed))
        assert seen == look(twin)

    @step(lambda self: self.published, key=numbers, name=st.sampled_from("abc"))
    def keep_in_a_worker(self, key: int, name: str) -> None:
        found = self.some_key(key)
        self.engine.run(jobs.keep, name, found)
        self.kept[name] = self.published[found]

    @step(lambda self: self.kept)
    def look_at_what_a_worker_keeps(self) -> None:
        expected = {name: look(memory.twin) for name, memory in self.kept.items()}
        assert self.engine.run(jobs.look_at_kept) == expected

    @step(lambda self: self.views, which=numbers)
    def pass_to_a_worker(self, which: int) -> None:
        view = self.some(which)
        if isinstance(view.real, memoryview):
            return
        if view.is_reference() and view.memory and view.memory.owner is not self.engine:
            with pytest.raises(ValueError, match="of another engine"):
                self.engine.run(jobs.look_at_argument, view.real)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # large plain ones: put them in heavy
            seen = self.engine.run(jobs.look_at_argument, view.real)
        assert seen == look(view.elsewhere())

    @step(shape=shapes, dtype=dtypes, seed=numbers, key=keys)
    def make_in_a_worker(self, shape: Any, dtype: Any, seed: int, key: str) -> None:
        memory = self.filled(dtype, shape, seed)
        real = self.engine.run(jobs.make, dtype, shape, seed)
        self.see(real, memory.publish())
        if seed % 2:
            self.engine.heavy[key] = real
            self.published[key] = memory.publish()

    @step(shape=shapes, dtype=dtypes, seed=numbers)
    def output_of_a_worker(self, shape: Any, dtype: Any, seed: int) -> None:
        memory = self.filled(dtype, shape, seed)
        self.see(self.engine.run(jobs.make_output, dtype, shape, seed), memory.publish())
        self.published["k0"] = memory.publish()

    # -- ends ----------------------------------------------------------------------------------

    @step(lambda self: self.views, which=numbers)
    def drop(self, which: int) -> None:
        self.views.pop(which % len(self.views))

    @step(lambda self: self.building, which=numbers)
    def drop_unpublished(self, which: int) -> None:
        self.building.pop(which % len(self.building))

    @step(lambda self: self.snapshots, which=numbers)
    def drop_a_snapshot(self, which: int) -> None:
        self.snapshots.pop(which % len(self.snapshots))

    @step()
    def collect_garbage(self) -> None:
        gc.collect()

    @step(lambda self: self.views)
    def fork(self) -> None:
        fork_and_look(self.engine, self.views)

    @step(lambda self: self.views and self.may_close)
    def close(self) -> None:
        self.may_close = False
        self.engine.close()
        Machine.engine = opened()
        self.published, self.kept = {}, {}

    # -- what always holds ---------------------------------------------------------------------

    @invariant()
    def every_view_reads_what_it_must(self) -> None:
        self.failed = True
        for view in self.views:
            view.check()
        self.failed = False
        del self.views[: max(0, len(self.views) - MOST_VIEWS)]

    @invariant()
    def no_finalizer_fails(self) -> None:
        assert not self.unraisable

    def teardown(self) -> None:
        self.views, self.building, self.snapshots = [], [], []
        for key in self.published:
            del self.engine.heavy[key]
        if self.kept:
            self.engine.run(jobs.forget)
        gc.collect()
        # What hypothesis remembers of each example is not looked at again: after 2,000 of them that
        # took more than all else together. Its own cycles have to go now and then.
        if self.examples % 500 == 0:
            gc.unfreeze()
            gc.collect()
        gc.freeze()
        sys.unraisablehook = self.hook
        if self.failed:  # its error holds arrays
            return
        until(nothing_in_use, "the heap to be empty", PATIENCE)
        until(lambda: maps_of_segments() <= self.maps, "all maps to be gone", PATIENCE)
        assert not self.unraisable

    # -- choosing ------------------------------------------------------------------------------

    def see(self, real: Any, memory: Bytes) -> View:
        view = View(real, memory.twin, memory)
        self.views.append(view)
        return view

    def build(self, real: Any, memory: Bytes, key: str) -> View:
        view = self.see(real, memory)
        self.building.append((view, key))
        return view

    def filled(self, dtype: Any, shape: tuple[int, ...], seed: int) -> Bytes:
        memory = Bytes(dtype, shape, owner=self.engine)
        memory.twin[...] = pattern(dtype, shape, seed)
        return memory

    def copy_of(self, key: str) -> Bytes:
        memory = self.published[key].copy()
        memory.owner = self.engine
        return memory

    def ours(self) -> list[tuple[View, str]]:
        """What is under construction in the engine that is open."""
        return [
            (view, key)
            for view, key in self.building
            if view.memory is not None and view.memory.owner is self.engine
        ]

    def some(self, which: int) -> View:
        return self.views[which % len(self.views)]

    def some_key(self, which: int) -> str:
        return sorted(self.published)[which % len(self.published)]


def opened() -> TheusEngine:
    engine = TheusEngine(workers=1)
    engine.run(jobs.forget)
    return engine


def maps_of_segments() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:")


def nothing_in_use() -> bool:
    Machine.engine.reap()
    return Machine.engine.stats()["memory"]["in_use"] == 0


@pytest.fixture
def engine() -> Iterator[None]:
    Machine.engine = opened()
    yield
    Machine.engine.close()
    del Machine.engine


def test_arrays_live_as_long_as_anything_reads_them(engine: None) -> None:
    began = time.monotonic()
    machine = hypothesis.seed(SEED)(Machine)
    run_state_machine_as_test(
        machine,
        settings=long_settings(EXAMPLES, STEPS),
    )
    for name, count in hits.items():
        print(f"{name:32} {count:8}")
    took = time.monotonic() - began
    print(f"{Machine.examples} examples, {sum(hits.values())} steps, seed {SEED}, {took:.0f} s")
    never = [name for name, count in hits.items() if not count]
    # Each example leaves some rules out; a few examples may all have left out the same.
    assert EXAMPLES < ENOUGH or not never, f"these rules were never tried: {never}"
