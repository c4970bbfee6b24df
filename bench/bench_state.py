"""What do a snapshot and a change of one key cost in a state of 10 keys, and of 100,000?

Run: ``python bench/bench_state.py``. Two engines take turns, one with few keys and one with many;
half of the keys are values and half are arrays. Figures are medians of the rounds.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import numpy as np
from noop import median_microseconds

from theus import TheusEngine

FEW, MANY = 10, 100_000
ROUNDS = 30
GOAL = 1.3


def filled(keys: int) -> TheusEngine:
    """An engine with so many keys."""
    engine = TheusEngine(workers=1)
    values = {f"group{i % 100}.key{i}": i for i in range(keys // 2)}
    array = np.zeros(4)
    arrays = {f"array{i}": array for i in range(keys // 2)}
    engine.compare_and_swap(0, data=values, heavy=arrays)
    return engine


def measured(engine: TheusEngine) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    numbers = itertools.count()
    array = engine.heavy["array3"]
    return {
        "snapshot": lambda: engine.state,
        "swap of one value": lambda: engine.compare_and_swap(
            engine.state.version, data={"group3.key3": next(numbers)}
        ),
        "swap of one array": lambda: engine.compare_and_swap(
            engine.state.version, heavy={"array3": array}
        ),
    }


def main() -> None:
    """Prints the table, and whether the goal is met."""
    with filled(FEW) as few, filled(MANY) as many:
        calls = {FEW: measured(few), MANY: measured(many)}
        names = list(calls[FEW])
        figures = {(name, keys): [] for name in names for keys in calls}  # type: dict[tuple[str, int], list[float]]
        for _, name, keys in itertools.product(range(ROUNDS), names, calls):
            figures[name, keys].append(median_microseconds(calls[keys][name]))
    print(f"{'median, µs':<20} {FEW:>9} keys {MANY:>9} keys  ratio (goal: {GOAL} at most)")
    for name in names:
        few_, many_ = (statistics.median(figures[name, keys]) for keys in (FEW, MANY))
        ratio = many_ / few_
        verdict = "met" if ratio <= GOAL else "missed"
        print(f"{name:<20} {few_:>14.1f} {many_:>14.1f}  {ratio:.2f} {verdict}")


if __name__ == "__main__":
    main()
