"""What does a task cost that does nothing? theus beside ProcessPoolExecutor, in one run.

Run: ``python bench/noop.py``. The two take turns; figures are medians of the rounds, so a machine
whose speed drifts does not favour either.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from theus import TheusEngine, process

ROUNDS = 20
CALLS = 200


@process(parallel=True)
def nothing(ctx: object) -> None:
    """Does nothing."""


def nothing_at_all() -> None:
    """Does nothing, for a pool that passes no context."""


def median_microseconds(once: Callable[[], object]) -> float:
    """Median time of ``once`` over ``CALLS`` calls."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter_ns()
        once()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1000


async def awaited_microseconds(engine: TheusEngine) -> float:
    """Median time of one awaited task."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter_ns()
        await engine.execute(nothing)
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1000


def main() -> None:
    """Prints the table and whether the goal is met."""
    figures: dict[str, list[float]] = {"theus await": [], "theus run": [], "executor submit": []}
    with TheusEngine(workers=2) as engine, ProcessPoolExecutor(2) as executor:
        executor.submit(nothing_at_all).result()
        engine.run(nothing)
        for _ in range(ROUNDS):
            figures["theus await"].append(asyncio.run(awaited_microseconds(engine)))
            figures["theus run"].append(median_microseconds(lambda: engine.run(nothing)))
            figures["executor submit"].append(
                median_microseconds(lambda: executor.submit(nothing_at_all).result())
            )
    print("no-op task, round trip        median      min      max  (µs, of rounds)")
    for name, values in figures.items():
        print(
            f"{name:<26} {statistics.median(values):>9.1f} {min(values):>8.1f} {max(values):>8.1f}"
        )
    ratios = [
        a / b for a, b in zip(figures["theus await"], figures["executor submit"], strict=True)
    ]
    ratio = statistics.median(ratios)
    verdict = "met" if ratio < 0.5 else "missed"
    print(f"theus await / executor submit: {ratio:.2f} (goal: below 0.50, {verdict})")


if __name__ == "__main__":
    main()
