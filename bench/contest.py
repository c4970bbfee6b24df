"""Taking turns: several ways to do the same work, measured side by side in one run.

A machine's speed drifts, and other programs come and go. So nobody is measured for long at a time:
in each round every entrant has its turn, in an order that is drawn anew, and what counts is the
ratio within a round.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
# `--rounds` lowers it, to see that everything runs.
most_rounds = 1 << 30


@dataclass
class Figure:
    """What one entrant took.

    Attributes:
        entrant: its name.
        seconds: the median time of one piece of work in each round.
        cpu: CPU seconds of this process and all below it for one piece of work, by round; their
            grain is a hundredth of a second for a whole round.
    """

    entrant: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The middle half of the rounds."""
        if len(self.seconds) < 3:
            return min(self.seconds), max(self.seconds)
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return first, third


def contest(
    entrants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    calls: int = 1,
    work: int = 1,
    seed: int = 0,
) -> dict[str, Figure]:
    """Let each entrant do the same work, `rounds` times in turn.

    Args:
        entrants: by name, what does the work once.
        rounds: how many turns each has, after one that does not count.
        calls: how often it does the work in a turn; the median of them counts.
        work: how many pieces one call is, for the time of one.
        seed: of the order.
    """
    figures = {name: Figure(name) for name in entrants}
    for once in entrants.values():
        once()
    order = random.Random(seed)
    for _ in range(min(rounds, most_rounds)):
        names = list(entrants)
        order.shuffle(names)
        for name in names:
            cpu = cpu_seconds()
            times = []
            for _ in range(calls):
                began = time.perf_counter()
                entrants[name]()
                times.append(time.perf_counter() - began)
            figures[name].seconds.append(statistics.median(times) / work)
            figures[name].cpu.append((cpu_seconds() - cpu) / (calls * work))
    return figures


def ratio(one: Figure, other: Figure) -> float:
    """The median over rounds of the one's time by the other's."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))


def cpu_seconds() -> float:
    """What this process and all that descend from it have used so far, the dead ones included."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(name)] = int(fields[1])
        ticks[int(name)] = sum(map(int, fields[11:15]))
    own = os.getpid()
    return sum(ticks[pid] for pid in ticks if _descends(pid, own, parents)) / TICKS


def _descends(pid: int, from_: int, parents: Mapping[int, int]) -> bool:
    while pid:
        if pid == from_:
            return True
        pid = parents.get(pid, 0)
    return False


def raw(figures: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """All numbers, as JSON has them."""
    return [asdict(figure) for figure in figures.values()]
