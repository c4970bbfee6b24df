"""What is measured: each figure is one question, answered by all entrants in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contest import Figure, ratio


@dataclass(frozen=True)
class Goal:
    """What theus is to reach.

    Attributes:
        one: an entrant.
        other: the one that it is compared with.
        limit: the most that the one's time may be of the other's; or the least, with `at_least`.
        at_least: for figures that are rates.
    """

    one: str
    other: str
    limit: float
    at_least: bool = False


@dataclass(frozen=True)
class Question:
    """One figure.

    Attributes:
        name: in a few words.
        unit: "µs" or "ms", or "1/s" where the times are shown as pieces per second.
        figures: by entrant.
        goal: if there is one.
        skipped: entrants that cannot do it, with the reason.
    """

    name: str
    unit: str
    figures: Mapping[str, Figure]
    goal: Goal | None = None
    note: str = ""

    def reached(self) -> tuple[float, bool] | None:
        """The ratio of the goal, and whether that is met; None without a goal or an entrant."""
        goal = self.goal
        if goal is None or goal.one not in self.figures or goal.other not in self.figures:
            return None
        one, other = self.figures[goal.one], self.figures[goal.other]
        if goal.at_least:
            value = ratio(other, one)
            return value, value >= goal.limit
        value = ratio(one, other)
        return value, value <= goal.limit


Run = Callable[[list[Any]], Iterator[Question]]


def runs() -> dict[str, Run]:
    """All sets of questions, by name; each gets the peers' entries."""
    from . import calls, heavy, jobs, start

    return {"calls": calls.run, "heavy": heavy.run, "jobs": jobs.run, "start": start.run}
