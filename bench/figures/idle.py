"""What a pool costs that is open and has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator

from contest import cpu_seconds
from peers import Entry
from peers.floors import Floor
from peers.theus_ import Theus

from . import Goal, Question, QuestionSet, Task

IDLE = 10  # s

IDLING = Question(
    f"CPU time that an open pool takes in {IDLE} s without work",
    "ms",
    (Goal("theus", None, 0.0),),
    "Of the tool's processes and the program together, to the clock's grain of 10 ms.",
)


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    if entry.open is Floor:
        return
    with entry.open() as peer:
        peer.gather(peer.nothing, 1000)
        # For theus: past the round in which it looks at its workers once more.
        time.sleep(7 if isinstance(peer, Theus) else 1)
        began = cpu_seconds()
        time.sleep(IDLE)
        used = cpu_seconds() - began
    yield IDLING.name, Task(entry.name, lambda: None, fixed=used)


SET = QuestionSet((IDLING,), tasks, rounds=3)
