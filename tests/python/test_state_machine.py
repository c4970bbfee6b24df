"""Random programs on the state of a real engine and on a plain dict: both do the same.

`make state EXAMPLES=10000` runs more of them; STATE_EXAMPLES and STATE_SEED say how many and which.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from long_machines import long_settings
from state_reference import Path, Reference, Touched, join
from theus import DELETE, REPLACE, ContextError, State, TheusEngine

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "60"))
SEED = int(os.environ.get("STATE_SEED", random.getrandbits(32)))
STEPS = 25
ENOUGH = 200  # examples, after which every outcome must have been seen

NAMES = st.sampled_from(["a", "b", "c", "d.e"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "l", "a"])
# What JSON gives back as it was, and what has to be pickled.
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-3, 3),
    st.none(),
    st.floats(allow_nan=False),
    st.text(max_size=2),
    st.lists(st.integers(0, 3), max_size=2),
    st.tuples(st.integers(0, 3)),
    st.binary(max_size=2),
)
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=4)
CHANGES = st.dictionaries(
    PATHS.map(join),
    st.one_of(VALUES, VALUES, st.just(DELETE), VALUES.map(REPLACE)),
    max_size=3,
)
ARRAYS = st.dictionaries(
    KEYS, st.one_of(st.just(DELETE), st.lists(st.floats(0, 9), max_size=3)), max_size=2
)

seen: Counter[str] = Counter()


class Machine(RuleBasedStateMachine):
    """One program. All run on the same engines, one of which is strict."""

    engines: ClassVar[dict[bool, TheusEngine]]

    @initialize(strict=st.booleans())
    def begin(self, strict: bool) -> None:
        self.strict = strict
        self.engine = self.engines[strict]
        state = self.engine.state
        self.engine.compare_and_swap(
            state.version,
            data=dict.fromkeys((join((name,)) for name in state.to_dict()), DELETE),
            heavy=dict.fromkeys(state.heavy.keys(), DELETE),
        )
        self.reference = Reference(self.engine.state.version)
        self.kept: list[tuple[State, dict[str, Any], dict[str, list[float]]]] = []
        self.keep()

    def is_lost(self, expected: int, touches: list[Touched]) -> bool:
        if self.strict and expected != self.reference.version:
            return True
        return bool(self.reference.conflicts(expected, touches))

    @rule(back=st.integers(0, 4), data=CHANGES, heavy=ARRAYS)
    def swap(self, back: int, data: dict[str, Any], heavy: dict[str, Any]) -> None:
        expected = max(self.kept[0][0].version, self.reference.version - back)
        operations = self.reference.operations(data)
        touches: list[Touched] = [(False, path) for path, _ in operations]
        touches += [(True, (key,)) for key in heavy]
        lost = self.is_lost(expected, touches)
        try:
            state = self.engine.compare_and_swap(expected, data=data, heavy=heavy)
        except ContextError as lost_by:
            error = lost_by
        else:
            assert not lost
            seen["swap won"] += 1
            if operations or heavy:
                self.reference.commit(operations, heavy)
            assert state.version == self.reference.version
            return
        assert lost, error
        seen["swap lost"] += 1
        assert (error.expected, error.found) == (expected, self.reference.version)
        assert all(c.changed_at > expected for c in error.conflicts)
        if not self.strict:
            conflicts = self.reference.conflicts(expected, touches)
            named = {(c.heavy, c.path) for c in error.conflicts}
            assert named == {(h, path[0] if h else join(path)) for h, path in conflicts}

    @rule(
        reads=st.lists(NAMES, max_size=2),
        writes=st.dictionaries(NAMES, LEAVES, max_size=2),
        key=st.none() | KEYS,
        lists=st.booleans(),
        between=st.dictionaries(PATHS.map(join), LEAVES, max_size=1),
        heavy_between=st.just({}) | ARRAYS,
    )
    def transaction(
        self,
        reads: list[str],
        writes: dict[str, Any],
        key: str | None,
        lists: bool,
        between: dict[str, Any],
        heavy_between: dict[str, Any],
    ) -> None:
        """Reads and writes, while somebody else may change something."""
        before = self.reference.version
        tree = self.reference.tree()
        tx = self.engine.edit()
        for name in reads:
            found = tx.get(name)
            assert (found.to_dict() if hasattr(found, "to_dict") else found) == tree.get(name)
        touches: list[Touched] = [(False, (name,)) for name in reads]
        if key is not None:
            array = tx.heavy.get(key)
            assert (None if array is None else array.tolist()) == self.reference.heavy.get(key)
            touches.append((True, (key,)))
        if lists:
            assert sorted(tx.heavy) == sorted(self.reference.heavy)
            touches.append((True, ()))  # all that lies below, so to speak
        for name, value in writes.items():
            tx[name] = value  # counts as a change also where it is what was there
        if between or heavy_between:
            self.swap(0, between, heavy_between)
        touches += [(False, (name,)) for name in writes]
        lost = bool(writes) and self.is_lost(before, touches)
        try:
            tx.commit()
        except ContextError:
            assert lost
            seen["transaction lost"] += 1
        else:
            assert not lost
            seen["transaction won"] += 1
            if writes:
                self.reference.commit([((name,), value) for name, value in writes.items()], {})

    @rule(path=PATHS, value=st.integers())
    def update(self, path: Path, value: int) -> None:
        """A read-modify-write of one place."""
        given: list[Any] = []

        def change(old: Any) -> int:
            given.append(old)
            return value

        before = self.reference.find(path)
        self.engine.update(join(path), change)
        (old,) = given
        assert (old.to_dict() if hasattr(old, "to_dict") else old) == before
        seen["update"] += 1
        self.reference.commit([(path, value)], {})

    @rule()
    def keep(self) -> None:
        """Keep a snapshot, which never changes."""
        state = self.engine.state
        self.kept.append((state, self.reference.tree(), dict(self.reference.heavy)))
        seen["kept"] += 1

    @invariant()
    def both_are_the_same(self) -> None:
        if not hasattr(self, "kept"):
            return
        state = self.engine.state
        assert state.version == self.reference.version
        now = (state, self.reference.tree(), self.reference.heavy)
        for snapshot, tree, heavy in (*self.kept, now):
            same(snapshot.to_dict(), tree)
            assert {key: snapshot.heavy[key].tolist() for key in snapshot.heavy} == heavy


def same(one: Any, other: Any) -> None:
    """Equal, and of the same types: 1 and 1.0 are not, nor a list and a tuple."""
    assert one == other
    assert repr(sorted_of(one)) == repr(sorted_of(other))


def sorted_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_of(value[key]) for key in sorted(value)}
    return value


@pytest.fixture
def engines() -> Iterator[None]:
    Machine.engines = {
        strict: TheusEngine(workers=1, strict_cas=strict) for strict in (False, True)
    }
    yield
    for engine in Machine.engines.values():
        engine.close()
    del Machine.engines


def test_the_state_is_what_a_plain_dict_would_be(engines: None) -> None:
    run_state_machine_as_test(
        hypothesis.seed(SEED)(Machine),
        settings=long_settings(EXAMPLES, STEPS),
    )
    for name, count in sorted(seen.items()):
        print(f"{name:20} {count:8}")
    print(f"{EXAMPLES} programs, seed {SEED}")
    outcomes = {"swap won", "swap lost", "transaction won", "transaction lost", "update", "kept"}
    assert EXAMPLES < ENOUGH or set(seen) == outcomes
