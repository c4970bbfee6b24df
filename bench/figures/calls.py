"""Calls that do nothing, one at a time and many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from contest import contest
from floors import socket_round_trip
from peers import Entry, Peer, opened
from peers.executor import FuturesPool
from peers.theus_ import Theus

from work import increment, nothing, nothing_with_ctx

from . import Goal, Question

GATHERED = 1000
ITEMS = 100_000
EXECUTOR = "ProcessPoolExecutor (spawn)"


def run(entries: list[Entry]) -> Iterator[Question]:
    with opened(entries) as peers:
        yield _round_trips(peers)
        yield _awaited(peers)
        yield _gathered(peers)
        yield _mapped(peers)


def _one(peer: Peer) -> Callable[[], object]:
    if isinstance(peer, Theus):
        return lambda: peer.engine.run(nothing_with_ctx)
    return lambda: peer.run(nothing)


def _round_trips(peers: dict[str, Peer]) -> Question:
    with socket_round_trip() as trip:
        entrants = {name: _one(peer) for name, peer in peers.items()}
        entrants["(socket)"] = trip
        figures = contest(entrants, calls=100)
    goal = Goal("theus", "(socket)", 0.7)
    return Question("a call that does nothing, waited for", "µs", figures, goal)


def _awaited(peers: dict[str, Peer]) -> Question:
    """Where the tool has something to await; the loop runs for the whole turn."""
    loop = asyncio.new_event_loop()
    entrants: dict[str, Callable[[], object]] = {}
    for name, peer in peers.items():
        if isinstance(peer, Theus):
            call = partial(peer.engine.execute, nothing_with_ctx)
        elif isinstance(peer, FuturesPool):
            call = partial(loop.run_in_executor, peer.executor, nothing)
        else:
            continue
        entrants[name] = partial(_on, loop, call)
    try:
        figures = contest(entrants, work=100)
    finally:
        loop.close()
    goal = Goal("theus", EXECUTOR, 0.25)
    return Question("a call that does nothing, awaited", "µs", figures, goal)


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[object]]) -> None:
    loop.run_until_complete(_hundred(call))


async def _hundred(call: Callable[[], Awaitable[object]]) -> None:
    for _ in range(100):
        await call()


def _gathered(peers: dict[str, Peer]) -> Question:
    entrants = {
        name: partial(
            peer.gather, nothing_with_ctx if isinstance(peer, Theus) else nothing, GATHERED
        )
        for name, peer in peers.items()
    }
    figures = contest(entrants, rounds=7, work=GATHERED)
    goal = Goal("theus", EXECUTOR, 6, at_least=True)
    return Question(f"{GATHERED:,} calls that do nothing, under way at once", "1/s", figures, goal)


def _mapped(peers: dict[str, Peer]) -> Question:
    entrants = {
        name: partial(peer.map, increment, range(ITEMS))
        for name, peer in peers.items()
        if name != "Dask"  # whose scheduler takes a minute for so many
    }
    figures = contest(entrants, rounds=5, work=ITEMS)
    goal = Goal("theus", "joblib", 3, at_least=True)
    note = "Dask is left out: its scheduler takes about a minute for so many."
    return Question(f"x + 1 for each of {ITEMS:,} numbers", "1/s", figures, goal, note)
