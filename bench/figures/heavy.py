"""Large arrays: making them known, reading them, and bringing results back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from contest import contest
from floors import warm_copy
from peers import Entry, Peer, opened
from peers.theus_ import Theus

from theus import TheusEngine
from theus.arrays import memory_of
from work import first_of, first_of_key, heavy_ones, nothing_with_ctx, ones

from . import Goal, Question

LARGE = 72_000_000
RESULT = 8 << 20
EXECUTOR = "ProcessPoolExecutor (spawn)"


def run(entries: list[Entry]) -> Iterator[Question]:
    array = np.ones(LARGE // 8)
    with opened(entries) as peers:
        yield _reading(peers, array)
        yield _putting(peers, array)
        yield _filling(peers, array)
        yield _result(peers)


def _reading(peers: dict[str, Peer], array: np.ndarray) -> Question:
    entrants: dict[str, Callable[[], object]] = {}
    for name, peer in peers.items():
        shared = peer.share(array)
        if isinstance(peer, Theus):
            key = memory_of(shared).origin.key
            entrants[name] = partial(peer.engine.run, first_of_key, key)
            entrants["theus, nothing"] = partial(peer.engine.run, nothing_with_ctx)
        else:
            entrants[name] = partial(peer.run, first_of, shared)
    figures = contest(entrants, rounds=9, calls=5)
    goal = Goal("theus", "theus, nothing", 1.1)
    return Question("a task that reads one element of 72 MB", "ms", figures, goal)


def _putting(peers: dict[str, Peer], array: np.ndarray) -> Question:
    """A second generation: the first is dropped by it."""
    entrants: dict[str, Callable[[], object]] = {"(copy)": warm_copy(LARGE)}
    for name, peer in peers.items():
        if isinstance(peer, Theus):
            entrants[name] = partial(peer.engine.heavy.put, "again", array)
        elif name in ("Ray", "Dask"):
            entrants[name] = partial(peer.share, array)
    figures = contest(entrants, rounds=9)
    goal = Goal("theus", "(copy)", 1.3)
    return Question("making 72 MB known to workers, again and again", "ms", figures, goal)


def _filling(peers: dict[str, Peer], array: np.ndarray) -> Question:
    entrants: dict[str, Callable[[], object]] = {"(copy)": warm_copy(LARGE)}
    for name, peer in peers.items():
        if isinstance(peer, Theus):
            entrants[name] = partial(_fill, peer.engine, array)
    figures = contest(entrants, rounds=9)
    goal = Goal("theus", "(copy)", 2.2)
    return Question("alloc (zeroed), fill and publish 72 MB, again and again", "ms", figures, goal)


def _fill(engine: TheusEngine, array: np.ndarray) -> None:
    made = engine.heavy.alloc("filled", array.shape)
    np.copyto(made, array)
    made.publish()


def _result(peers: dict[str, Peer]) -> Question:
    entrants: dict[str, Callable[[], object]] = {}
    for name, peer in peers.items():
        if isinstance(peer, Theus):
            entrants[name] = partial(peer.engine.run, heavy_ones, RESULT)
            entrants["theus, a plain array"] = partial(peer.run, ones, RESULT)
        else:
            entrants[name] = partial(peer.run, ones, RESULT)
    figures = contest(entrants, rounds=9, calls=3)
    goal = Goal("theus", EXECUTOR, 0.1)
    return Question("a result of 8 MB", "ms", figures, goal)
