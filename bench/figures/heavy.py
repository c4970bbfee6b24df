"""Large arrays: making them known, reading them, and bringing results back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from peers import Entry
from peers.floors import Floor
from peers.theus_ import Theus

from . import EXECUTOR, Goal, Question, QuestionSet, Task

LARGE = 72_000_000
RESULT = 8 << 20

READ = Question(
    "a task that reads one element of 72 MB", "µs", (Goal("theus", "theus, nothing", 1.1),)
)
PUT = Question(
    "making 72 MB known to workers, again and again", "ms", (Goal("theus", "(copy)", 1.3),)
)
FILL = Question(
    "alloc (zeroed), fill and publish 72 MB, again and again",
    "ms",
    (Goal("theus", "(copy)", 2.2),),
)
RETURN = Question("a result of 8 MB", "ms", (Goal("theus", EXECUTOR, 0.1),))


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    array = np.ones(LARGE // 8)
    with entry.open() as peer:
        if isinstance(peer, Floor):
            yield PUT.name, Task("(copy)", peer.warm_copy(LARGE), calls=15)
            yield FILL.name, Task("(copy)", peer.warm_copy(LARGE), calls=15)
        elif isinstance(peer, Theus):
            yield from _of_theus(peer, array)
        else:
            from work import first_of, ones

            if peer.share(array) is not array:
                yield PUT.name, Task(entry.name, partial(peer.share, array), calls=5)
            shared = peer.share(array)
            yield READ.name, Task(entry.name, partial(peer.run, first_of, shared), calls=5)
            yield RETURN.name, Task(entry.name, partial(peer.run, ones, RESULT), calls=9)


def _of_theus(peer: Theus, array: np.ndarray) -> Iterator[tuple[str, Task]]:
    from theus_work import first_of_key, heavy_ones

    from work import ones

    engine = peer.engine

    def fill() -> None:
        made = engine.heavy.alloc("filled", array.shape)
        np.copyto(made, array)
        made.publish()

    yield PUT.name, Task("theus", partial(engine.heavy.put, "again", array), 15, warm_up=3)
    yield FILL.name, Task("theus", fill, calls=15, warm_up=3)
    nothing = partial(peer.run, peer.nothing)
    yield READ.name, Task("theus, nothing", nothing, calls=1000, warm_up=100)
    yield READ.name, Task("theus", partial(engine.run, first_of_key, "again"), 1000, warm_up=100)
    yield RETURN.name, Task("theus", partial(engine.run, heavy_ones, RESULT), calls=15)
    yield RETURN.name, Task("theus, a plain array", partial(peer.run, ones, RESULT), calls=15)


SET = QuestionSet((READ, PUT, FILL, RETURN), tasks)
