"""The kinds of tasks that clients submit, and how to tell that a result is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import work
from patterns import LARGE, SMALL, checksum, expected, is_a_pattern, pattern

Facts = list[int]


@dataclass(frozen=True)
class Kind:
    """A kind of tasks.

    Attributes:
        function: runs in a worker.
        arguments: its keyword arguments, besides the task's number.
        facts: what to write down of a result, and of what the engine then has; checksums for
            arrays.
        right: whether these facts are right for a task of this number.
        fails_as: the exception that it may raise, or must if it is `always`.
        timeout: range of running times that it is given; None: it has as long as it likes.
        cancelled: range of times after which its caller loses patience.
    """

    function: Callable[..., Any]
    arguments: Callable[[int, Random], Mapping[str, Any]] = lambda task, random: {}
    facts: Callable[[Any, Any], Facts] = lambda result, engine: [result]
    right: Callable[[int, Facts], bool] = lambda task, facts: False
    fails_as: str = ""
    always: bool = False
    timeout: tuple[float, float] | None = None
    cancelled: tuple[float, float] | None = None


ROWS = [(number, str(number)) for number in range(4000)]


def _seen_and_added(task: int, facts: Facts) -> bool:
    return facts == [expected(task, LARGE), expected(task, LARGE, added=1)]


def _one_generation(_: int, facts: Facts) -> bool:
    generation, table, small = facts
    return (table, small) == (expected(generation, LARGE), expected(generation, SMALL))


def _made(_: int, facts: Facts) -> bool:
    # Another task may have published its own since; what is there belongs together all the same.
    task, large, small = facts
    return (large, small) == (expected(task, LARGE), expected(task, SMALL))


def _made_facts(_: Any, engine: Any) -> Facts:
    state = engine.state
    return [
        state.data["made"],
        checksum(state.heavy["made large"]),
        checksum(state.heavy["made small"]),
    ]


KINDS: dict[str, Kind] = {
    "short": Kind(work.multiply, right=lambda task, facts: facts == [task * 7]),
    "short, cancelled": Kind(
        work.multiply, right=lambda task, facts: facts == [task * 7], cancelled=(0.0, 0.0005)
    ),
    "busy": Kind(
        work.compute,
        arguments=lambda task, random: {"seconds": random.uniform(0.001, 0.03)},
        right=lambda task, facts: facts == [task * 5],
    ),
    "busy, cancelled": Kind(
        work.compute,
        arguments=lambda task, random: {"seconds": 0.01},
        right=lambda task, facts: facts == [task * 5],
        cancelled=(0.0, 0.02),
    ),
    "large": Kind(
        work.add_to_array,
        arguments=lambda task, random: {"data": pattern(task, LARGE)},
        facts=lambda result, engine: [result[0], checksum(result[1])],
        right=_seen_and_added,
    ),
    "rows": Kind(
        work.invert_rows,
        arguments=lambda task, random: {"rows": ROWS},
        facts=lambda result, engine: [len(result), sum(int(name) for name, _ in result)],
        right=lambda task, facts: facts == [len(ROWS), sum(number for number, _ in ROWS)],
    ),
    "text": Kind(
        work.text_of,
        facts=lambda result, engine: [len(result), sum(result)],
        right=lambda task, facts: facts == [55_000, 55_000 * (task % 251)],
    ),
    "raising": Kind(work.refuse, fails_as="ValueError", always=True),
    "too long": Kind(work.sleep, timeout=(0.01, 0.1)),
    "given up": Kind(work.sleep, cancelled=(0.0, 0.1)),
    "reading": Kind(
        work.read_arrays, facts=lambda result, engine: list(result), right=_one_generation
    ),
    "publishing": Kind(work.publish_made, facts=_made_facts, right=_made),
    "declared output": Kind(
        work.publish_declared,
        facts=lambda result, engine: [checksum(engine.heavy["declared"])],
        right=lambda task, facts: is_a_pattern(facts[0], LARGE),  # perhaps a later task's
    ),
    "adding": Kind(
        work.add_one,
        facts=lambda result, engine: [],
        right=lambda task, facts: True,
        fails_as="ContextError",
    ),
    "forking": Kind(work.fork_holder, right=lambda task, facts: facts[0] > 1),
    # One for each item of a map.
    "item": Kind(work.item, right=lambda task, facts: facts == [task * 3]),
}

# How often each is chosen, relative to the others.
MIX = {
    "short": 10, "short, cancelled": 2, "busy": 4, "busy, cancelled": 2, "large": 3, "rows": 5,
    "text": 6, "raising": 2, "too long": 1, "given up": 1, "reading": 6, "publishing": 2,
    "declared output": 1, "adding": 3,
}  # fmt: skip
