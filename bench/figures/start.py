"""From nothing to the first result, and what an engine costs that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from contest import cpu_seconds
from peers import Entry
from peers.floors import Floor
from peers.theus_ import Theus

from . import Goal, Question, QuestionSet, Task

IDLE = 10  # s

FIRST = Question(
    "opening a pool, a first result, and closing it", "ms", (Goal("theus", "loky", 0.5),)
)
IMPORT = Question(
    "a program that imports it and ends",
    "ms",
    (),
    "What theus adds to numpy alone is the difference of the two; its goal is 60 ms.",
)
IDLING = Question(
    f"CPU time that an open pool takes in {IDLE} s without work",
    "ms",
    (Goal("theus", None, 0.0),),
    "Of the tool's processes and the program together, to the clock's grain of 10 ms.",
)
MODULES = {"loky": "loky", "joblib": "joblib", "Ray": "ray", "Dask": "distributed"}


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    if entry.name in MODULES or entry.name == "theus":
        yield IMPORT.name, _imports(entry.name, MODULES.get(entry.name, "theus"))
    with entry.open() as peer:
        floor = isinstance(peer, Floor)
        if floor:
            yield IMPORT.name, _imports("(numpy alone)", "numpy")
        else:
            peer.run(peer.nothing)
            peer.gather(peer.nothing, 1000)  # what it does after work is over is its own affair
            # For theus: past the round in which it looks at its workers once more.
            time.sleep(7 if isinstance(peer, Theus) else 1)
            began = cpu_seconds()
            time.sleep(IDLE)
            used = cpu_seconds() - began
    if not floor:
        yield IDLING.name, Task(entry.name, lambda: None, fixed=used)

        def first_result() -> None:
            with entry.open() as peer:
                peer.run(peer.nothing)

        yield FIRST.name, Task(entry.name, first_result)


def _imports(name: str, module: str) -> Task:
    command = [sys.executable, "-c", f"import {module}"]
    return Task(name, lambda: subprocess.run(command, check=True), calls=5)


SET = QuestionSet((FIRST, IMPORT, IDLING), tasks, rounds=3)
