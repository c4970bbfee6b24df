"""From nothing to the first result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from peers import Entry
from peers.floors import Floor

from . import Goal, Question, QuestionSet, Task

FIRST = Question(
    "opening a pool, a first result, and closing it, in a new program",
    "ms",
    (Goal("theus", "loky", 0.5),),
    "Once, without anything that a pool before has left; the import of the tool is in it.",
)
IMPORT = Question(
    "a program that imports it and ends",
    "ms",
    (),
    "theus imports numpy when it is first needed; to have both takes the sum of the two.",
)
MODULES = {
    "theus": "theus",
    "loky": "loky",
    "joblib": "joblib",
    "Ray": "ray",
    "Dask": "distributed",
    "(floor)": "numpy",
}


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    if entry.open is not Floor:

        def first_result() -> None:
            with entry.open() as peer:
                peer.run(peer.nothing)

        yield FIRST.name, Task(entry.name, first_result, warm_up=0)
    if entry.name in MODULES:
        command = [sys.executable, "-c", f"import {MODULES[entry.name]}"]
        name = "(numpy alone)" if entry.open is Floor else entry.name
        yield IMPORT.name, Task(name, lambda: subprocess.run(command, check=True), calls=5)


SET = QuestionSet((FIRST, IMPORT), tasks)
