"""Work of numpy's, on both cores."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from peers import Entry
from peers.floors import Floor
from peers.theus_ import Theus

from . import Goal, Question, QuestionSet, Task

SIDE = 3000
PRODUCTS = 4
SORTS = 8

MATMUL = Question(
    f"{PRODUCTS} products of {SIDE} by {SIDE} matrices",
    "ms",
    (Goal("theus", "(one after the other, BLAS on all cores)", 1.05),),
)
SORT = Question(
    f"{SORTS} jobs of one thread each", "ms", (Goal("theus", "(one after the other)", 0.55),)
)


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    from work import product_sum, sort_sum

    left, right = np.random.default_rng(0).random((2, SIDE, SIDE))
    with entry.open() as peer:
        if isinstance(peer, Floor):
            yield (
                MATMUL.name,
                Task(
                    "(one after the other, BLAS on all cores)",
                    lambda: [product_sum(left, right) for _ in range(PRODUCTS)],
                ),
            )
            yield (
                SORT.name,
                Task("(one after the other)", lambda: [sort_sum(seed) for seed in range(SORTS)]),
            )
            return
        if isinstance(peer, Theus):
            from theus_work import product_of_keys

            engine = peer.engine
            engine.heavy.put("left", left)
            engine.heavy.put("right", right)

            def products() -> None:
                calls = [engine.submit(product_of_keys, "left", "right") for _ in range(PRODUCTS)]
                for call in calls:
                    call.result()

            yield MATMUL.name, Task("theus", products)
        yield SORT.name, Task(entry.name, partial(peer.map, sort_sum, range(SORTS)))


SET = QuestionSet((MATMUL, SORT), tasks, rounds=3)
