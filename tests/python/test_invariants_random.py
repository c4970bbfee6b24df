"""Random numbers differ between workers, and do not depend on how many there are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import jobs
import jobs_that_fail
from gate import Gate
from theus import TheusEngine

SEED = 20_240_229


def drawn(workers: int, seed: int = SEED, **options: Any) -> Any:
    """What tasks draw from ctx.rng, by each way to run them, in this order."""
    with TheusEngine(workers=workers, seed=seed, **options) as engine:
        mapped = list(engine.map(jobs.draw, range(60)))
        in_fives = list(engine.map(jobs.draw, range(60), chunksize=5))
        submitted = [task.result(60) for task in [engine.submit(jobs.draw) for _ in range(20)]]
        awaited = asyncio.run(executed(engine))
        return mapped, in_fives, submitted, awaited, engine.run(jobs.draw)


async def executed(engine: TheusEngine) -> list[float]:
    return await asyncio.gather(*(engine.execute(jobs.draw) for _ in range(20)))


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    one, two, three = (drawn(workers) for workers in (1, 2, 3))
    assert one == two == three
    mapped, in_fives, submitted, awaited, alone = one
    everything = [*mapped, *in_fives, *submitted, *awaited, alone]
    assert len(set(everything)) == len(everything) == 161, "each task has numbers of its own"


def test_nor_on_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = drawn(2)
    monkeypatch.setenv("THEUS_USE_PROCESSES", "0")
    assert drawn(2) == expected


def test_nor_on_how_a_map_was_cut() -> None:
    with TheusEngine(workers=2, seed=SEED) as one, TheusEngine(workers=2, seed=SEED) as other:
        assert list(one.map(jobs.draw, range(30), chunksize=1)) == list(
            other.map(jobs.draw, range(30), chunksize=7)
        )


def test_a_retried_task_draws_the_same(tmp_path: Path) -> None:
    with TheusEngine(workers=1, seed=SEED) as engine:
        expected = engine.run(jobs.draw)
    with TheusEngine(workers=1, seed=SEED) as engine:
        marker = str(tmp_path / "was here")
        assert engine.run(jobs_that_fail.draw_after_a_crash, marker, retries=1) == expected


def test_another_seed_draws_others() -> None:
    one, other = drawn(1, seed=1), drawn(1, seed=2)
    assert not {*one[0], *one[2]} & {*other[0], *other[2]}


def test_without_a_seed_engines_differ() -> None:
    with TheusEngine(workers=1) as one, TheusEngine(workers=1) as other:
        assert one.run(jobs.draw) != other.run(jobs.draw)


@pytest.mark.parametrize("seed", [None, SEED])
def test_the_global_generators_differ_between_workers(gate: Gate, seed: int | None) -> None:
    """A fork copies their state: without a new seed all workers draw the same."""
    workers = 3
    with TheusEngine(workers=workers, seed=seed) as engine:
        tasks = [
            engine.submit(jobs.draw_globally, reports=gate.reports, gate=gate.path)
            for _ in range(workers)
        ]
        gate.arrived(workers)  # so each is in a worker of its own
        gate.open()
        results = [task.result(60) for task in tasks]
    assert len({pid for pid, *_ in results}) == workers
    for generator in ("random", "numpy.random"):
        assert len({drawn[generator] for _, drawn in results}) == workers, generator
    assert len({drawn["os"] for _, drawn in results}) == workers


def test_a_replaced_worker_draws_others_than_its_predecessor() -> None:
    with TheusEngine(workers=1, seed=SEED) as engine:
        first_pid, first = engine.run(jobs.draw_globally)
        assert engine.submit(jobs_that_fail.die).exception(60) is not None
        second_pid, second = engine.run(jobs.draw_globally)
    assert first_pid != second_pid
    assert first["random"] != second["random"]
    assert first["numpy.random"] != second["numpy.random"]
