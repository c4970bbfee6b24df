"""ctx: arguments, domain, arrays and random numbers as processes see them."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from theus.context import (
    BaseDomainContext,
    BaseSystemContext,
    Domain,
    HeavyView,
    Inputs,
    TaskContext,
    WorkerInfo,
    task_generator,
)
from theus.errors import TheusError


class TestInputs:
    def test_items_and_attributes(self) -> None:
        inputs = Inputs({"rate": 0.5, "n": 3})
        assert inputs.rate == inputs["rate"] == inputs.get("rate") == 0.5
        assert dict(inputs) == {**inputs} == {"rate": 0.5, "n": 3}
        assert list(inputs) == ["rate", "n"]
        assert len(inputs) == 2
        assert "n" in inputs
        assert inputs == {"rate": 0.5, "n": 3}
        assert inputs.get("missing", 7) == 7
        assert not Inputs()

    def test_an_argument_wins_over_a_method(self) -> None:
        inputs = Inputs({"items": [1, 2], "get": 3})
        assert inputs.items == [1, 2]
        assert inputs["get"] == 3
        assert dict(inputs) == {"items": [1, 2], "get": 3}

    def test_a_wrong_name_gets_the_closest_one(self) -> None:
        inputs = Inputs({"learning_rate": 1, "n": 3})
        with pytest.raises(AttributeError, match="did you mean 'learning_rate'") as caught:
            inputs.learnign_rate  # noqa: B018
        assert "n" in str(caught.value)
        with pytest.raises(KeyError, match="did you mean 'learning_rate'"):
            inputs["learnign_rate"]
        assert not hasattr(inputs, "zzz")

    def test_it_is_read_only(self) -> None:
        inputs = Inputs({"n": 3})
        with pytest.raises(AttributeError, match="read-only"):
            inputs.n = 4
        with pytest.raises(TypeError):
            inputs["n"] = 4  # type: ignore[index]
        assert inputs.n == 3

    def test_it_can_be_sent(self) -> None:
        assert pickle.loads(pickle.dumps(Inputs({"n": 3}))).n == 3


class TestDomain:
    def test_arguments_lie_over_what_is_stored(self) -> None:
        loads: list[int] = []

        def load() -> dict[str, Any]:
            loads.append(1)
            return {"rate": 1, "limit": 9}

        domain = Domain({"rate": 2}, load)
        assert domain.rate == 2
        assert not loads, "arguments do not need the state"
        assert domain["limit"] == domain.limit == 9
        assert dict(domain) == {"rate": 2, "limit": 9}
        assert len(loads) == 1

    def test_it_is_read_only_and_says_what_to_do(self) -> None:
        domain = Domain({"rate": 2}, dict)
        with pytest.raises(PermissionError, match="outputs="):
            domain.rate = 3
        with pytest.raises(PermissionError, match="StateUpdate"):
            domain["rate"] = 3  # type: ignore[index]

    def test_wrong_names(self) -> None:
        domain = Domain({"rate": 2}, lambda: {"limit": 9})
        with pytest.raises(AttributeError, match="did you mean 'limit'"):
            domain.limti  # noqa: B018
        with pytest.raises(KeyError, match="did you mean 'rate'"):
            domain["rat"]

    def test_a_domain_that_is_no_dict_counts_as_empty(self) -> None:
        assert dict(Domain({"a": 1}, lambda: 5)) == {"a": 1}


class Arrays(HeavyView):
    """Two arrays, and one that is not published."""

    def __init__(self) -> None:
        self.found = {"prices": np.arange(3.0), "volumes": np.arange(4.0)}

    def _find(self, key: str) -> Any:
        return self.found.get(key)

    def _is_unpublished(self, key: str) -> bool:
        return key == "draft"

    def keys(self) -> Sequence[str]:
        return list(self.found)

    def cow(self, key: str) -> Any:
        return self[key].copy()

    def alloc(self, key: str, shape: Any, dtype: Any = "float64") -> Any:
        return np.zeros(shape, dtype)


class TestHeavyView:
    def test_ways_to_read(self) -> None:
        heavy = Arrays()
        assert heavy["prices"] is heavy.prices is heavy.get("prices")
        assert heavy.get("nothing") is None
        assert heavy.get("nothing", 5) == 5
        assert "prices" in heavy
        assert "nothing" not in heavy
        assert list(heavy) == ["prices", "volumes"]
        assert len(heavy) == 2

    def test_wrong_keys(self) -> None:
        heavy = Arrays()
        with pytest.raises(KeyError, match="did you mean 'prices'"):
            heavy["prcies"]
        with pytest.raises(AttributeError, match="did you mean 'prices'"):
            heavy.prcies  # noqa: B018
        with pytest.raises(TypeError, match="strings, not int"):
            heavy[5]  # type: ignore[index]

    def test_unpublished_keys_are_not_there_and_say_so(self) -> None:
        heavy = Arrays()
        assert heavy.get("draft") is None
        assert "draft" not in heavy
        with pytest.raises(KeyError, match="not published"):
            heavy["draft"]

    def test_it_is_read_only(self) -> None:
        with pytest.raises(PermissionError, match="engine.heavy.put"):
            Arrays()["prices"] = np.zeros(3)


class TestTaskContext:
    def make(self, **changes: Any) -> TaskContext:
        known: dict[str, Any] = {
            "input": Inputs({"n": 1}),
            "domain": Domain({}, dict),
            "heavy": Arrays(),
            "state": None,
            "log": logging.getLogger("test"),
            "worker": WorkerInfo(2, 100),
            "seed": 5,
            "rng_key": 7,
        }
        return TaskContext(**{**known, **changes})

    def test_a_wrong_name_gets_the_closest_one(self) -> None:
        with pytest.raises(AttributeError, match="did you mean 'input'"):
            self.make().inptu  # noqa: B018

    def test_out_says_why_there_is_none(self) -> None:
        with pytest.raises(TheusError, match="ctx.heavy.alloc"):
            self.make().out  # noqa: B018

    def test_its_numbers_depend_on_seed_key_and_item_only(self) -> None:
        first = self.make().rng.random(4)
        assert (self.make(worker=WorkerInfo(0, 1)).rng.random(4) == first).all()
        for change in ({"seed": 6}, {"rng_key": 8}, {"item": 0}, {"item": 1}):
            assert (self.make(**change).rng.random(4) != first).any()

    def test_it_is_not_copied(self) -> None:
        ctx = self.make()
        assert copy.copy(ctx) is ctx
        for attempt in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="ctx belongs to the call"):
                attempt(ctx)

    def test_the_generator_goes_on(self) -> None:
        ctx = self.make()
        assert ctx.rng is ctx.rng


def test_no_two_tasks_share_a_stream() -> None:
    keys: list[tuple[int, int | None]] = [
        (key, item) for key in (0, 1, 5, 2**32, 2**32 + 5, 2**63) for item in (None, 0, 1, 5, 2**32)
    ]
    drawn = {task_generator(1, key, item).integers(2**63) for key, item in keys}
    assert len(drawn) == len(keys)


def test_base_contexts_carry_attributes() -> None:
    ctx = BaseSystemContext(domain=BaseDomainContext(rate=2), extra=1)
    assert ctx.domain.rate == 2
    assert ctx.extra == 1
    assert ctx.global_ctx is None


def test_importing_it_is_cheap() -> None:
    code = "import sys, theus.context; print('numpy' in sys.modules, 'asyncio' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == ["False", "False"]
