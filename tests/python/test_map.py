"""engine.map: order, laziness, failures, batches."""

from __future__ import annotations

import asyncio
import itertools
import operator
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs
from conftest import EngineFactory
from gate import Gate
from polling import until
from theus import ContractViolationError, StatelessnessError, TheusEngine, process
from theus.batches import LARGEST, TARGET, BatchSize


def square(x: int) -> int:
    return x * x


def fail_at_13(x: int) -> int:
    if x == 13:
        raise ValueError("thirteen")
    return x


def draw(ctx: Any, _: int) -> float:
    return float(ctx.rng.random())


@pytest.mark.parametrize("chunksize", ["auto", 1, 7, 1000])
def test_results_come_in_order(engine: TheusEngine, chunksize: Any) -> None:
    results = engine.map(square, range(100), chunksize=chunksize)
    assert next(results) == 0
    assert list(results) == [x * x for x in range(1, 100)]
    assert list(engine.map(operator.add, [1, 2, 3], itertools.count(10))) == [11, 13, 15]
    assert list(engine.map(square, [])) == []


def test_asynchronous_iteration(engine: TheusEngine) -> None:
    async def main() -> None:
        results = [x async for x in engine.map(square, range(50))]
        assert results == [x * x for x in range(50)]
        seen: list[int] = []

        async def see() -> None:
            async for x in engine.map(fail_at_13, range(30), chunksize=5):
                seen.append(x)

        with pytest.raises(ValueError, match="thirteen"):
            await see()
        assert seen == list(range(13))

    asyncio.run(main())


def test_the_first_exception_is_raised_in_its_place(engine: TheusEngine) -> None:
    seen: list[int] = []
    with pytest.raises(ValueError, match="thirteen") as caught:
        seen.extend(engine.map(fail_at_13, range(1000), chunksize=5))
    assert seen == list(range(13))
    assert "fail_at_13" in str(caught.value.__cause__)
    engine.shutdown()  # returns: the rest was cancelled


def test_it_is_lazy_and_never_far_ahead(engine: TheusEngine) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = engine.map(square, endless(), chunksize=10)
    assert taken == 0
    for expected in range(1, 51):
        assert next(results) == expected**2
    assert taken <= 50 + 10 * (2 * 2 + 3)
    results.close()
    with pytest.raises(RuntimeError, match="once"):
        aiter_of(results)


def after_gate(gate: str, x: int) -> int:
    if x == 0:
        jobs.wait_at(gate)
    return fail_at_13(x)


@pytest.mark.parametrize("processes", ["1", "0"])
def test_without_an_order_a_slow_item_keeps_none_waiting(
    make_engine: EngineFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    monkeypatch.setenv("THEUS_USE_PROCESSES", processes)
    engine = make_engine()
    gates = itertools.repeat(gate.path)
    items = [*range(10), *range(20, 100)]
    results = engine.map(after_gate, gates, items, chunksize=1, ordered=False)
    # More than can be on their way at once: the first item is still waiting.
    first = list(itertools.islice(results, 50))
    assert 0 not in first
    gate.open()
    assert sorted([*first, *results]) == items


def test_without_an_order_asynchronously(engine: TheusEngine, gate: Gate) -> None:
    async def main() -> None:
        gates = itertools.repeat(gate.path)
        seen: list[int] = []
        async for x in engine.map(after_gate, gates, range(20, 100), ordered=False):
            seen.append(x)
        assert sorted(seen) == list(range(20, 100))
        items = [0, *range(20, 100)]
        async for x in engine.map(after_gate, gates, items, chunksize=1, ordered=False):
            seen.append(x)
            if len(seen) == 130:
                assert 0 not in seen
                gate.open()
        assert sorted(seen[80:]) == items

    asyncio.run(main())


def test_without_an_order_the_first_failure_ends_it(engine: TheusEngine, gate: Gate) -> None:
    results = engine.map(
        after_gate, itertools.repeat(gate.path), range(100), chunksize=1, ordered=False
    )
    seen: list[int] = []
    with pytest.raises(ValueError, match="thirteen"):
        seen.extend(iter(results.__next__, None))
    until(lambda: engine.stats()["tasks"]["running"] == 0, "the rest to be cancelled")

    async def main() -> None:
        gates = itertools.repeat(gate.path)
        async for x in engine.map(after_gate, gates, range(100), chunksize=1, ordered=False):
            assert x not in (0, 13)

    with pytest.raises(ValueError, match="thirteen"):
        asyncio.run(main())
    until(lambda: engine.stats()["tasks"]["running"] == 0, "the rest to be cancelled")


def test_dropping_a_map_without_an_order_cancels_the_rest(engine: TheusEngine, gate: Gate) -> None:
    gates = itertools.repeat(gate.path)
    for _ in engine.map(after_gate, gates, range(10), chunksize=1, ordered=False):
        break

    async def main() -> None:
        results = engine.map(after_gate, gates, range(10), chunksize=1, ordered=False)
        async for _ in results:
            break

    asyncio.run(main())
    until(lambda: engine.stats()["tasks"]["running"] == 0, "the rest to be cancelled")


def test_many_results_without_an_order(engine: TheusEngine) -> None:
    assert sorted(engine.map(square, range(20_000), ordered=False)) == [
        x * x for x in range(20_000)
    ]
    assert list(engine.map(square, [], ordered=False)) == []


def aiter_of(results: Any) -> Any:
    return results.__aiter__()


def test_dropping_it_cancels_the_rest(engine: TheusEngine, tmp_path: Path) -> None:
    def wait_unless_first(x: int) -> int:
        while x and not Path(str(tmp_path / "never")).exists():
            pass
        return x

    for _ in engine.map(wait_unless_first, range(10), chunksize=1):
        break
    engine.shutdown()  # returns: nothing runs any more


def test_random_numbers_belong_to_the_item(make_engine: EngineFactory) -> None:
    def drawn(workers: int, chunksize: Any) -> list[float]:
        with make_engine(workers=workers, seed=7) as engine:
            return list(engine.map(draw, range(40), chunksize=chunksize))

    expected = drawn(1, 1)
    assert len(set(expected)) == 40
    assert drawn(2, "auto") == drawn(2, 9) == expected
    with make_engine(seed=7) as engine:
        first, second = list(engine.map(draw, range(3))), list(engine.map(draw, range(3)))
    assert first == expected[:3]
    assert not set(first) & set(second), "another map, other numbers"


def test_outputs_of_each_item_are_committed(engine: TheusEngine) -> None:
    @process(parallel=True, outputs=["last"])
    def job(ctx: Any, x: int) -> int:
        return x

    assert list(engine.map(job, range(5))) == list(range(5))
    assert engine.state.last == 4


def test_what_is_wrong_is_said_at_once(engine: TheusEngine) -> None:
    with pytest.raises(TypeError, match="at least one iterable"):
        engine.map(square)
    with pytest.raises(ValueError, match="chunksize"):
        engine.map(square, [1], chunksize=0)
    with pytest.raises(KeyError, match="no process is called"):
        engine.map("nonsense", [1])
    with pytest.raises(StatelessnessError, match=r"items\[1\]\[0\]"):
        list(engine.map(square, [1, (i for i in [])], chunksize=2))


def test_shared_arrays_as_items(engine: TheusEngine) -> None:
    array = engine.heavy.put("x", np.arange(12.0).reshape(3, 4))
    assert list(engine.map(np.sum, array)) == [6, 22, 38]


def test_progress(
    engine: TheusEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(list(engine.map(square, range(20), progress=True))) == 20
    assert "20/20" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert len(list(engine.map(square, range(20), progress=True))) == 20
    assert "square: 20/20\n" in capsys.readouterr().err


# ---- how large batches become -----------------------------------------------------


def simulate(sizes: BatchSize, workers: int, cost: float, overhead: float, batches: int) -> int:
    """Run batches on simulated workers; gives the last size."""
    clock, size, free = 0.0, 1, [0.0] * workers
    for _ in range(batches):
        size = sizes.next()
        worker = min(range(workers), key=lambda w: free[w])
        free[worker] += overhead + size * cost
        clock = max(clock, free[worker])
        sizes.ended(size, clock)
    return size


def test_batches_of_short_calls_grow_to_the_target() -> None:
    size = simulate(BatchSize(None, 2, None), 2, 10e-6, 100e-6, 300)
    assert 0.3 * TARGET < size * 10e-6 < 3 * TARGET


def test_long_calls_stay_alone() -> None:
    assert simulate(BatchSize(None, 4, None), 4, 0.2, 100e-6, 50) == 1


def test_batches_are_bounded_and_leave_work_for_all() -> None:
    assert simulate(BatchSize(None, 2, None), 2, 0.0, 1e-9, 500) <= LARGEST
    sizes = BatchSize(None, 2, 100)
    sent = 0
    while sent < 100:
        size = sizes.next()
        assert size <= max(1, (100 - sent) // 4 + 1)
        sizes.ended(size, 1e-6 * sent)
        sent += size
    assert BatchSize(5, 2, 100).next() == 5


@process(parallel=True, inputs=["heavy.table", "column"])
def of_column(ctx: Any, column: int) -> float:
    return float(ctx.heavy.table[:, column].sum())


@process(inputs=["domain.total", "amount"], outputs=["domain.total"])
def add_to_total(ctx: Any, amount: int) -> None:
    ctx.domain.total += amount


def test_each_item_is_a_call_of_the_contract(engine: TheusEngine) -> None:
    with pytest.raises(ContractViolationError, match=r"of_column.*input 'heavy\.table'"):
        list(engine.map(of_column, [0]))
    with pytest.raises(ContractViolationError, match=r"add_to_total.*input 'domain\.total'"):
        list(engine.map(add_to_total, [1]))
    engine.heavy.put("table", np.arange(6.0).reshape(2, 3))
    assert list(engine.map(of_column, range(3))) == [3.0, 5.0, 7.0]


def test_items_of_the_host_write_the_state(engine: TheusEngine) -> None:
    engine.compare_and_swap(0, data={"domain.total": 0})
    assert list(engine.map(add_to_total, range(200), chunksize=3)) == [None] * 200
    assert engine.state.domain.total == sum(range(200))

    async def main() -> None:
        async for _ in engine.map(add_to_total, range(200)):
            pass

    asyncio.run(main())
    assert engine.state.domain.total == 2 * sum(range(200))
