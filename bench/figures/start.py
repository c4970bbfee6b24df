"""From nothing to the first result."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from contest import contest
from peers import Entry, installed

from work import nothing

from . import Goal, Question


def run(entries: list[Entry]) -> Iterator[Question]:
    entrants = {entry.name: partial(_first_result, entry) for entry in entries if installed(entry)}
    figures = contest(entrants, rounds=5)
    goal = Goal("theus", "loky", 0.5)
    yield Question("opening a pool, a first result, and closing it", "ms", figures, goal)


def _first_result(entry: Entry) -> None:
    with entry.open() as peer:
        peer.run(nothing)
