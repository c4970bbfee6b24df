"""Work of numpy's, on both cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from contest import contest
from peers import Entry, Peer, opened
from peers.theus_ import Theus

from theus import TheusEngine
from work import product_of_keys, product_sum, sort_sum

from . import Goal, Question

SIDE = 3000
PRODUCTS = 4
SORTS = 8


def run(entries: list[Entry]) -> Iterator[Question]:
    with opened(entries) as peers:
        yield _products(peers)
        yield _sorts(peers)


def _products(peers: dict[str, Peer]) -> Question:
    random = np.random.default_rng(0)
    left, right = random.random((2, SIDE, SIDE))
    entrants: dict[str, Callable[[], object]] = {
        "(one after the other, BLAS on all cores)": lambda: [
            product_sum(left, right) for _ in range(PRODUCTS)
        ]
    }
    for name, peer in peers.items():
        if isinstance(peer, Theus):
            peer.engine.heavy.put("left", left)
            peer.engine.heavy.put("right", right)
            entrants[name] = partial(_all_products, peer.engine)
    figures = contest(entrants, rounds=5)
    goal = Goal("theus", "(one after the other, BLAS on all cores)", 1.05)
    return Question(f"{PRODUCTS} products of {SIDE} by {SIDE} matrices", "ms", figures, goal)


def _all_products(engine: TheusEngine) -> None:
    futures = [engine.submit(product_of_keys, "left", "right") for _ in range(PRODUCTS)]
    for future in futures:
        future.result()


def _sorts(peers: dict[str, Peer]) -> Question:
    entrants: dict[str, Callable[[], object]] = {
        "(one after the other)": lambda: [sort_sum(seed) for seed in range(SORTS)]
    }
    for name, peer in peers.items():
        entrants[name] = partial(peer.map, sort_sum, range(SORTS))
    figures = contest(entrants, rounds=5)
    goal = Goal("theus", "(one after the other)", 0.55)
    return Question(f"{SORTS} jobs of one thread each", "ms", figures, goal)
