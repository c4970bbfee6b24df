"""What the results of processes change in the state."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import theus
from polling import until
from theus import ContractViolationError, StateUpdate, TheusEngine, process


@process(parallel=True, inputs=["heavy.x", "domain.factor"], outputs=["domain.total", "heavy.y"])
def scale(ctx: Any) -> tuple[float, Any]:
    out = ctx.heavy.alloc("y", ctx.heavy["x"].shape)
    np.multiply(ctx.heavy["x"], ctx.domain["factor"], out=out)
    return float(out.sum()), out


def test_outputs_are_committed_and_returned(engine: TheusEngine) -> None:
    engine.heavy.put("x", np.arange(4.0))
    engine.compare_and_swap(1, data={"domain.factor": 10})
    total, array = engine.run(scale)
    assert total == 60
    state = engine.state
    assert state.version == 3, "data and arrays in one step"
    assert state.domain.total == 60
    assert state.heavy["y"].tolist() == [0, 10, 20, 30]
    assert theus.is_shared(array)
    # What the worker wrote into is given back when the result is there, or a moment later.
    until(lambda: engine.stats()["segments"] == 2, "x and y alone: published without a copy")
    assert engine.run(lambda ctx: ctx.heavy["y"].tolist()) == [0, 10, 20, 30]


def test_inputs_are_checked_at_submit(engine: TheusEngine) -> None:
    with pytest.raises(ContractViolationError, match=r"'heavy\.x'.*neither an argument"):
        engine.run(scale)
    engine.heavy.put("x", [1.0])
    with pytest.raises(PermissionError, match=r"'domain\.factor'"):
        engine.submit(scale)
    engine.compare_and_swap(engine.state.version, data={"domain": {"factors": 2}})
    with pytest.raises(ContractViolationError, match=r"domain: no 'factor'.*mean 'factors'"):
        engine.run(scale)

    @process(inputs=["n"], parallel=True)
    def needs_n(ctx: Any, n: int) -> int:
        return n

    assert engine.run(needs_n, n=1) == engine.run(needs_n, 1) == 1
    with pytest.raises(ContractViolationError, match="'n'"):
        engine.run(needs_n)


def test_state_updates_are_committed(engine: TheusEngine) -> None:
    def update(ctx: Any, version: int | None) -> StateUpdate:
        out = ctx.heavy.alloc("made", 2)
        out[:] = 5
        return StateUpdate("a.b", 1, {"c": 2}, {"made": out}, assert_version=version)

    result = engine.run(update, None)
    assert isinstance(result, StateUpdate), "the caller gets what was returned"
    assert engine.state.data == {"a": {"b": 1}, "c": 2}
    assert engine.heavy["made"].tolist() == [5, 5]
    with pytest.raises(theus.ContextError):
        engine.submit(update, 0).result(30)
    assert engine.state.version == 1


def test_a_result_that_does_not_fit_its_outputs(engine: TheusEngine) -> None:
    @process(outputs=["a", "b"], parallel=True)
    def one_value(ctx: Any) -> int:
        return 5

    async def main() -> None:
        with pytest.raises(ContractViolationError, match="declares 2 outputs"):
            await engine.execute(one_value)

    asyncio.run(main())
    assert engine.state.version == 0


def test_host_processes_commit_too(engine: TheusEngine) -> None:
    @process(outputs=["n"])
    def count(ctx: Any) -> int:
        return int(ctx.state.data.get("n", 0)) + 1

    @process(outputs=["m"])
    async def count_async(ctx: Any) -> int:
        return 7

    async def main() -> None:
        await engine.execute(count)
        await engine.execute(count_async)

    asyncio.run(main())
    assert engine.state.data == {"n": 1, "m": 7}
    assert engine.run(count) == 2
    assert engine.state.n == 2
