"""Paths, merging and encoding of what a caller commits."""

from __future__ import annotations

import json
import math
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from theus import DELETE, REPLACE, LargeArgumentWarning, StatelessnessError
from theus import _abi as abi
from theus.paths import join_path, parse_path
from theus.updates import Change, changes_of, lookup_in


def as_dict(changes: list[Change]) -> dict[str, Any]:
    """The values that changes set, by path."""
    decode = {abi.CODEC_JSON: json.loads, abi.CODEC_PICKLE: pickle.loads}
    return {c.path: decode[c.codec](c.payload) for c in changes}


def test_dots_are_paths_and_dicts_merge() -> None:
    changes = changes_of({"a.b": 1, "c": {"d": {"e": 2}, "f": 3}})
    assert as_dict(changes) == {"a.b": 1, "c.d.e": 2, "c.f": 3}
    assert all(c.op == abi.SET for c in changes)


def test_keys_below_the_top_are_literal() -> None:
    assert as_dict(changes_of({"files": {"a.txt": 1}})) == {r"files.a\.txt": 1}
    assert as_dict(changes_of({r"files.a\.txt": 1})) == {r"files.a\.txt": 1}


@pytest.mark.parametrize("path", [("a",), ("a", "b"), ("a.b", "c\\d", "é")])
def test_paths_survive(path: tuple[str, ...]) -> None:
    assert parse_path(join_path(path)) == path


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a\\", "a\\b", "a\0b", "\ud800"])
def test_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        changes_of({path: 1})


def test_paths_are_strings() -> None:
    with pytest.raises(TypeError, match="not a string: 3"):
        changes_of({3: 1})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="takes a dict"):
        changes_of([("a", 1)])  # type: ignore[arg-type]


def test_a_dict_with_other_keys_is_one_value() -> None:
    (change,) = changes_of({"a": {1: "x", "y": 2}})
    assert change.codec == abi.CODEC_PICKLE
    assert pickle.loads(change.payload) == {1: "x", "y": 2}


def test_delete_and_replace() -> None:
    assert changes_of({"a": {"b": DELETE}}) == [Change(abi.DELETE, "a.b")]
    assert changes_of({"a": REPLACE({"x": 1})}) == [
        Change(abi.DELETE, "a"),
        Change(abi.SET, "a.x", abi.CODEC_JSON, b"1"),
    ]
    assert changes_of({"a": REPLACE({})})[-1] == Change(abi.SET, "a", abi.CODEC_JSON, b"{}")


def test_an_empty_dict_does_not_remove_what_is_there() -> None:
    lookup = lookup_in({"a": {"b": 1}, "leaf": 2})
    assert changes_of({"a": {}}, lookup) == []
    created = Change(abi.SET, "new", abi.CODEC_JSON, b"{}")
    assert changes_of({"new": {}}, lookup) == [created]
    assert [c.path for c in changes_of({"leaf": {}}, lookup)] == ["leaf"]


EXACT = [None, True, 0, -1, 2**70, 1.5, -0.0, "", "é\n", [], [1, [2.5, None]], [{"a": [1]}]]
NOT_EXACT = [
    math.inf,
    math.nan,
    (1, 2),
    {1, 2},
    b"x",
    np.float64(1.5),
    np.arange(3),
    "\ud800",
    [(1,)],
    [{1: 2}],
    [{}],
    1 << 5000,
]


@pytest.mark.parametrize("value", EXACT)
def test_what_json_gives_back_exactly_is_json(value: Any) -> None:
    (change,) = changes_of({"a": value})
    assert change.codec == abi.CODEC_JSON
    again = json.loads(change.payload)
    assert again == value
    assert type(again) is type(value)
    if isinstance(value, float):
        assert math.copysign(1, again) == math.copysign(1, value)


@pytest.mark.parametrize("value", NOT_EXACT, ids=str)
def test_anything_else_is_pickled(value: Any) -> None:
    (change,) = changes_of({"a": value})
    assert change.codec == abi.CODEC_PICKLE
    again = pickle.loads(change.payload)
    assert type(again) is type(value)


def test_a_cycle_is_pickled() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    (change,) = changes_of({"a": cycle})
    again = pickle.loads(change.payload)
    assert again[0] is again


def test_what_cannot_leave_is_named() -> None:
    with pytest.raises(StatelessnessError) as caught:
        changes_of({"a": {"b": [1, {"lock": threading.Lock()}, 2]}})
    assert caught.value.path == "data['a']['b'][1]['lock']"
    assert caught.value.type_name == "_thread.lock"


def test_a_large_array_as_a_value_is_worth_a_word() -> None:
    with pytest.warns(LargeArgumentWarning, match="engine.heavy"):
        changes_of({"a": [np.zeros(1 << 18)]})
