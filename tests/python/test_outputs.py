"""What a return value commits."""

from __future__ import annotations

from typing import Any

import pytest

from theus import ContractViolationError, StateUpdate
from theus.contracts import ProcessContract
from theus.outputs import commit_of


def committed(result: Any, *outputs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    commit = commit_of("job", ProcessContract(outputs=outputs), result)
    return commit.data, commit.heavy


def test_one_output_is_the_value_whatever_it_is() -> None:
    assert committed((1, 2), "a.b") == ({"a.b": (1, 2)}, {})
    assert committed({"b": 1}, "a.b") == ({"a.b": {"b": 1}}, {})
    assert committed("array", "heavy.k.j") == ({}, {"k.j": "array"})
    assert committed(None, "a.b") == ({}, {})


def test_several_by_position() -> None:
    assert committed((1, None, 3), "a.b", "a.c", "heavy.k") == ({"a.b": 1}, {"k": 3})
    with pytest.raises(ContractViolationError, match="2 values"):
        committed((1, 2), "a", "b", "c")


def test_several_by_path_or_last_name() -> None:
    assert committed({"a.b": 1, "c": 2}, "a.b", "x.c") == ({"a.b": 1, "x.c": 2}, {})
    assert committed({"c": 2}, "a.b", "x.c") == ({"x.c": 2}, {})
    with pytest.raises(ContractViolationError, match="'other', which is not among"):
        committed({"b": 1, "other": 2}, "a.b", "a.c")
    with pytest.raises(ContractViolationError, match="full path"):
        committed({"b": 1}, "a.b", "x.b")


def test_one_value_for_several_outputs_is_refused() -> None:
    with pytest.raises(ContractViolationError, match="declares 2 outputs"):
        committed(5, "a", "b")
    assert committed(None, "a", "b") == ({}, {})


def test_without_outputs_nothing_is_committed() -> None:
    assert not commit_of("job", ProcessContract(), {"a": 1})
    assert not commit_of("job", None, {"a": 1})


def test_a_state_update_says_it_all() -> None:
    update = StateUpdate("a.b", 1, {"c": 2}, {"k": 3}, None, 7)
    commit = commit_of("job", None, update)
    assert (commit.data, commit.heavy, commit.expected) == ({"a.b": 1, "c": 2}, {"k": 3}, 7)
    assert commit_of("job", None, StateUpdate("heavy.x", 4)).heavy == {"x": 4}
    with pytest.raises(TypeError, match="no signals"):
        StateUpdate(signal="stop")
    with pytest.raises(TypeError, match="key="):
        StateUpdate(val=1)
