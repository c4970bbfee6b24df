"""What is measured: each figure is one question, answered by all entrants in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from contest import Figure, ratio
from peers import Entry

EXECUTOR = "ProcessPoolExecutor (spawn)"


class Task(NamedTuple):
    """How an entrant answers a question.

    Attributes:
        entrant: its name in the table.
        once: does the work.
        calls: how often it does it in a turn; the median of them counts.
        pieces: of how many pieces one call is, for the time of one.
        warm_up: calls before that do not count.
        fixed: seconds that were measured otherwise already; `once` is not called.
    """

    entrant: str
    once: Callable[[], object]
    calls: int = 1
    pieces: int = 1
    warm_up: int = 1
    fixed: float | None = None


@dataclass(frozen=True)
class Goal:
    """What theus is to reach.

    Attributes:
        one: an entrant.
        other: the one that it is compared with; None: `limit` is a number of seconds.
        limit: the most that the one's time may be of the other's; or the least, with `at_least`.
        at_least: for figures that are rates.
    """

    one: str
    other: str | None
    limit: float
    at_least: bool = False

    def reached(self, figures: Mapping[str, Figure]) -> tuple[float, bool] | None:
        """The ratio or the number, and whether that is met; None without an entrant."""
        if self.one not in figures or (self.other is not None and self.other not in figures):
            return None
        one = figures[self.one]
        if self.other is None:
            return one.median, one.median <= self.limit
        if self.at_least:
            value = ratio(figures[self.other], one)
            return value, value >= self.limit
        value = ratio(one, figures[self.other])
        return value, value <= self.limit


@dataclass(frozen=True)
class Question:
    """One figure.

    Attributes:
        name: in a few words.
        unit: "µs" or "ms", or "1/s" where the times are shown as pieces per second.
        goals: what theus is to reach, if anything.
        note: what else is to be known.
    """

    name: str
    unit: str
    goals: tuple[Goal, ...] = ()
    note: str = ""


class QuestionSet(NamedTuple):
    """Questions that an entrant answers in one turn.

    Attributes:
        questions: all of them.
        tasks: (name of the question, how it is answered) for an entrant, while it is open.
        rounds: how many turns each entrant has.
    """

    questions: tuple[Question, ...]
    tasks: Callable[[Entry], Iterator[tuple[str, Task]]]
    rounds: int = 5


def sets() -> dict[str, QuestionSet]:
    """All sets of questions, by name."""
    from . import calls, growth, heavy, idle, jobs, stages, start

    return {
        "calls": calls.SET,
        "heavy": heavy.SET,
        "jobs": jobs.SET,
        "start": start.SET,
        "idle": idle.SET,
        "growth": growth.SET,
        "stages": stages.SET,
    }
