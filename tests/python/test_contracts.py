"""The process decorator and what it attaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from theus import SemanticType, process
from theus.contracts import ProcessContract, contract_of


def test_bare_and_called_give_the_function_back() -> None:
    def plain(ctx: Any) -> int:
        return 1

    assert process(plain) is plain
    assert contract_of(plain) == ProcessContract()

    @process(
        inputs=["domain.a", "b"],
        outputs=["domain.c"],
        semantic=SemanticType.PURE,
        errors=[ValueError, "Other"],
        side_effects=["log"],
        parallel=True,
    )
    def full(ctx: Any) -> int:
        return 1

    contract = contract_of(full)
    assert contract is not None
    assert contract.inputs == ("domain.a", "b")
    assert contract.outputs == ("domain.c",)
    assert contract.semantic is SemanticType.PURE
    assert contract.errors == ("ValueError", "Other")
    assert contract.parallel
    assert full._pop_contract is contract  # type: ignore[attr-defined]


def test_data_among_the_inputs_is_refused() -> None:
    array = np.zeros((2, 3))
    with pytest.raises(TypeError, match=r"names, not data.*ndarray of shape \(2, 3\)"):
        process(inputs=[array])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="names, not data.*ndarray"):
        process(inputs=array)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="engine.heavy"):
        process(outputs=[{}])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="empty"):
        process(outputs=[""])


def test_one_name_needs_no_list() -> None:
    @process(outputs="heavy.x")
    def fn(ctx: Any) -> None: ...

    contract = contract_of(fn)
    assert contract is not None
    assert contract.outputs == ("heavy.x",)


def test_what_takes_no_attributes_is_refused() -> None:
    with pytest.raises(TypeError, match="function around it"):
        process(pow)
