"""Read-only dicts and lists."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from theus.frozen import FrozenDict, FrozenList, freeze

DATA = {"a": {"b": [1, {"c": 2}]}, "t": (1, [2])}

CHANGES: list[Callable[[Any], object]] = [
    lambda d: d.__setitem__("x", 1),
    lambda d: d.__delitem__("a"),
    lambda d: d.update(x=1),
    lambda d: d.setdefault("x", 1),
    lambda d: d.pop("a"),
    lambda d: d.popitem(),
    lambda d: d.clear(),
    lambda d: d.__ior__({"x": 1}),
    lambda d: setattr(d, "x", 1),
    lambda d: d["a"]["b"].append(1),
    lambda d: d["a"]["b"].__setitem__(0, 1),
    lambda d: d["a"]["b"].sort(),
    lambda d: d["a"]["b"].__iadd__([1]),
    lambda d: d["a"]["b"][1].update(c=3),
    lambda d: d["t"][1].append(3),
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_changes_it(change: Callable[[Any], object]) -> None:
    frozen = freeze(DATA)
    with pytest.raises(TypeError, match="snapshot of the state never changes"):
        change(frozen)
    assert frozen == DATA


def test_it_is_a_dict_for_json_and_equality() -> None:
    frozen = freeze({"a": {"b": [1, 2]}})
    assert json.loads(json.dumps(frozen)) == {"a": {"b": [1, 2]}}
    assert isinstance(frozen, dict)
    assert frozen.a.b == [1, 2]


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d)), FrozenDict.copy],
)
def test_copies_are_plain_and_writable(duplicate: Callable[[Any], Any]) -> None:
    plain = duplicate(freeze(DATA))
    assert type(plain) is dict
    plain["new"] = 1


def test_to_dict_is_plain_all_the_way_down() -> None:
    plain = freeze(DATA).to_dict()
    assert plain == DATA
    plain["a"]["b"].append(3)
    plain["a"]["b"][1]["c"] = 4
    assert type(copy.deepcopy(freeze([1, [2]]))) is list
    assert type(freeze([1])) is FrozenList


def test_missing_attributes_name_the_nearest() -> None:
    with pytest.raises(AttributeError, match="did you mean 'rate'"):
        _ = freeze({"rate": 1}).rat
    assert not hasattr(freeze({}), "__array__")


def test_arrays_become_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        freeze({"x": np.zeros(2)})["x"][0] = 1
