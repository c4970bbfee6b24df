"""The versioned state through the engine: reading, compare-and-swap, conflicts."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from conftest import EngineFactory
from theus import DELETE, REPLACE, Conflict, ContextError, StatelessnessError, TheusEngine
from theus.context import BaseDomainContext, BaseSystemContext


def test_an_empty_engine_is_at_version_0(engine: TheusEngine) -> None:
    assert engine.state.version == 0
    assert engine.state.data == {}
    assert list(engine.state.heavy) == []


def test_a_swap_gives_the_new_state(engine: TheusEngine) -> None:
    state = engine.compare_and_swap(0, data={"domain.rate": 0.5, "domain": {"n": 3}})
    assert state.version == 1
    assert state.data == {"domain": {"rate": 0.5, "n": 3}}
    assert state.domain.rate == state["domain"]["rate"] == 0.5
    assert json.loads(json.dumps(state.data)) == state.to_dict()


def test_values_come_back_as_they_were(engine: TheusEngine) -> None:
    values = {
        "none": None,
        "int": 2**80,
        "float": 1e-300,
        "text": "é\u2028",
        "list": [1, [2, {"a": None}]],
        "tuple": (1, {2}),
        "bytes": b"\x00\xff",
        "keys": {1: "x"},
        "nothing": {},
        "dotted": {"a.b": {"c\\d": 1}},
    }
    state = engine.compare_and_swap(0, data=values)
    assert state.to_dict() == values
    assert {k: type(v) for k, v in state.to_dict().items()} == {
        k: type(v) for k, v in values.items()
    }


def test_a_snapshot_never_changes(engine: TheusEngine) -> None:
    engine.compare_and_swap(0, data={"a": 1, "b": {"c": [1]}})
    before = engine.state  # not looked at before the change
    engine.compare_and_swap(1, data={"a": 2, "b.c": DELETE})
    assert before.version == 1
    assert before.data == {"a": 1, "b": {"c": [1]}}
    assert engine.state.data == {"a": 2}


def test_merging_replacing_deleting(engine: TheusEngine) -> None:
    engine.compare_and_swap(0, data={"c": {"x": 1, "y": {"z": 2}}})
    assert engine.compare_and_swap(1, data={"c": {"y": {"w": 3}}}).data == {
        "c": {"x": 1, "y": {"z": 2, "w": 3}}
    }
    assert engine.compare_and_swap(2, data={"c": {"y": REPLACE({"v": 4})}}).c.y == {"v": 4}
    assert engine.compare_and_swap(3, data={"c": {"y": {}, "x": DELETE}}).data == {
        "c": {"y": {"v": 4}}
    }
    assert engine.compare_and_swap(4, data={"c": 5}).data == {"c": 5}
    assert engine.compare_and_swap(5, data={"c": {"d": 6}}).data == {"c": {"d": 6}}


def test_a_conflict_says_what_and_where(engine: TheusEngine) -> None:
    for i in range(3):
        engine.compare_and_swap(i, data={"a.b": i})
    with pytest.raises(ContextError) as caught:
        engine.compare_and_swap(0, data={"a": {"b": 9}})
    text = str(caught.value)
    assert text.startswith(
        "CAS Version Mismatch (Conflict Detected): Expected 0, Found 3 (Keys Changed): a.b"
    )
    assert (caught.value.expected, caught.value.found) == (0, 3)
    assert caught.value.conflicts == (Conflict("a.b", 3, False),)
    assert engine.state.a.b == 2
    assert engine.stats()["conflicts"] == {"a.b": 1}


def test_other_places_do_not_conflict(engine: TheusEngine) -> None:
    engine.compare_and_swap(0, data={"a.b": 1})
    assert engine.compare_and_swap(0, data={"a.c": 2}).data == {"a": {"b": 1, "c": 2}}
    with pytest.raises(ContextError):
        engine.compare_and_swap(0, data={"a": REPLACE({"d": 1})})


def test_strict_engines_refuse_any_other_version(make_engine: EngineFactory) -> None:
    engine = make_engine(strict_cas=True)
    engine.compare_and_swap(0, data={"a": 1})
    with pytest.raises(ContextError, match="Strict CAS Mismatch") as caught:
        engine.compare_and_swap(0, data={"other": 1})
    assert (caught.value.expected, caught.value.found) == (0, 1)


def test_nonsense_versions(engine: TheusEngine) -> None:
    with pytest.raises(ValueError, match="99"):
        engine.compare_and_swap(99, data={"a": 1})
    with pytest.raises(ValueError, match="negative"):
        engine.compare_and_swap(-1, data={"a": 1})
    with pytest.raises(TypeError, match=r"engine\.state\.version"):
        engine.compare_and_swap("0", data={"a": 1})  # type: ignore[arg-type]


def test_what_cannot_leave_changes_nothing(engine: TheusEngine) -> None:
    with pytest.raises(StatelessnessError, match=r"data\['job'\]\['lock'\]"):
        engine.compare_and_swap(0, data={"fine": 1, "job": {"lock": threading.Lock()}})
    assert engine.state.version == 0


def test_concurrent_increments_are_all_counted(engine: TheusEngine) -> None:
    engine.compare_and_swap(0, data={"n": 0})

    def increment() -> None:
        for _ in range(25):
            while True:
                state = engine.state
                try:
                    engine.compare_and_swap(state.version, data={"n": state.n + 1})
                    break
                except ContextError:
                    continue

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.state.n == 100


@dataclass
class Settings:
    rate: float = 0.5
    tags: list[str] = field(default_factory=lambda: ["x"])


@dataclass
class Context:
    domain: Settings = field(default_factory=Settings)
    limit: int = 3


class Loose:
    def __init__(self) -> None:
        self.domain = {"a": 1}
        self._private = 2


@pytest.mark.parametrize(
    ("context", "data"),
    [
        (None, {}),
        (..., {}),
        ({"a": {"b": 1}, "dotted.key": 2}, {"a": {"b": 1}, "dotted.key": 2}),
        (Context(), {"domain": {"rate": 0.5, "tags": ["x"]}, "limit": 3}),
        (Loose(), {"domain": {"a": 1}}),
        (BaseSystemContext(domain=BaseDomainContext(n=1)), {"domain": {"n": 1}}),
    ],
)
def test_a_context_seeds_the_state(make_engine: EngineFactory, context: Any, data: Any) -> None:
    assert make_engine(context).state.data == data


def test_a_bad_context_leaves_no_engine_behind(make_engine: EngineFactory) -> None:
    with pytest.raises(StatelessnessError, match=r"data\['db'\]\['lock'\] is a _thread.lock"):
        make_engine({"db": {"lock": threading.Lock()}})
    with pytest.raises(TypeError, match="context="):
        make_engine(3)
