"""Calls that do nothing, one at a time and many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from peers import Entry, Peer
from peers.executor import FuturesPool
from peers.floors import Floor

from . import EXECUTOR, Goal, Question, QuestionSet, Task

GATHERED = 1000
AWAITED = 1000
ITEMS = 100_000
TOO_SLOW = ("Dask", "Rust Theus 3.0.25")  # for so many

WAITED_FOR = Question(
    "a call that does nothing, waited for", "µs", (Goal("theus", "(socket)", 0.7),)
)
AWAIT = Question("a call that does nothing, awaited", "µs", (Goal("theus", EXECUTOR, 0.25),))
GATHER = Question(
    f"{GATHERED:,} calls that do nothing, under way at once",
    "1/s",
    (Goal("theus", EXECUTOR, 6, at_least=True),),
)
MAP = Question(
    f"x + 1 for each of {ITEMS:,} numbers",
    "1/s",
    (Goal("theus", "joblib", 3, at_least=True),),
    "Dask and the Rust Theus are left out: they would take about a minute for so many.",
)


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    with entry.open() as peer:
        name = entry.name
        if isinstance(peer, Floor):
            with peer.socket_round_trip() as trip:
                yield WAITED_FOR.name, Task("(socket)", trip, calls=2000, warm_up=200)
            return
        from work import increment

        nothing = peer.nothing
        yield WAITED_FOR.name, Task(name, partial(peer.run, nothing), calls=1000, warm_up=100)
        if (call := _awaitable(peer)) is not None:
            loop = asyncio.new_event_loop()
            yield AWAIT.name, Task(name, partial(_on, loop, call), calls=3, pieces=AWAITED)
            loop.close()
        yield GATHER.name, Task(name, partial(peer.gather, nothing, GATHERED), 3, GATHERED)
        if name not in TOO_SLOW:
            yield MAP.name, Task(name, partial(peer.map, increment, range(ITEMS)), 3, ITEMS)


SET = QuestionSet((WAITED_FOR, AWAIT, GATHER, MAP), tasks)


def _awaitable(peer: Peer) -> Callable[[], Awaitable[object]] | None:
    """Where the tool has something to await."""
    if isinstance(peer, FuturesPool):
        return lambda: asyncio.get_running_loop().run_in_executor(peer.executor, peer.nothing)
    execute = getattr(peer, "execute", None)
    return None if execute is None else partial(execute, peer.nothing)


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[object]]) -> None:
    loop.run_until_complete(_all(call))


async def _all(call: Callable[[], Awaitable[object]]) -> None:
    for _ in range(AWAITED):
        await call()
