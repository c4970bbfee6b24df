"""Trying again after a lost compare-and-swap, so that nobody loses for ever."""

from __future__ import annotations

import contextlib
import contextvars
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from .errors import ContextError

__all__ = ["Contention"]

T = TypeVar("T")
R = TypeVar("R")

# Who has lost so often goes first.
_PRIORITY_AFTER = 3
_FIRST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.05
# Others let who goes first have twice the time of its last try, within these bounds in seconds: it
# may be stuck in code of the user's.
_LEAST_COURTESY = 0.05
_MOST_COURTESY = 10.0
_LOOK = 0.005  # how often a coroutine looks whether it may go on

_own_turns: contextvars.ContextVar[tuple[_Turn, ...]] = contextvars.ContextVar(
    "theus_turns", default=()
)


class _Turn:
    """One change that is tried until it is committed."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)  # that it touches, as far as that is known before; none: any
        self.lost = 0
        self.took = 0.0  # the last try, in seconds
        self._began = 0.0

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """While a try is prepared: changes within it are a part of this one."""
        self._began = time.monotonic()
        token = _own_turns.set((*_own_turns.get(), self))
        try:
            yield
        finally:
            _own_turns.reset(token)

    def lose(self) -> None:
        self.lost += 1
        self.took = time.monotonic() - self._began

    @property
    def courtesy(self) -> float:
        return min(_MOST_COURTESY, max(_LEAST_COURTESY, 2 * self.took))

    def meets(self, other: _Turn) -> bool:
        """Whether both may touch the same."""
        if not self.paths or not other.paths:
            return True
        return any(
            f"{one}.".startswith(f"{two}.") or f"{two}.".startswith(f"{one}.")
            for one in self.paths
            for two in other.paths
        )


class Contention:
    """The turns of those in this process who change the state of one engine until they have.

    A plain compare_and_swap knows nothing of it: it is tried once.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._first: _Turn | None = None  # who goes first; guarded by the condition

    def run(
        self,
        prepare: Callable[[], T],
        commit: Callable[[T], R],
        retries: int,
        paths: Iterable[str] = (),
        hopeless: Callable[[T, ContextError], bool] = lambda *_: False,
    ) -> R:
        """What `commit` makes of what `prepare` gives.

        Both are called again when the commit raises a ContextError, at most `retries` times.

        Args:
            paths: what it touches, as far as that is known; none: anything.
            hopeless: whether it would lose again for the same reason.
        """
        turn = _Turn(paths)
        try:
            while True:
                with self._changed:
                    first = self._in_the_way(turn)
                    if first is not None:
                        self._wait_for(first)
                    self._claim(turn)
                with turn.trying():
                    prepared = prepare()
                try:
                    return commit(prepared)
                except ContextError as lost:
                    if turn.lost >= retries or hopeless(prepared, lost):
                        raise
                    turn.lose()
                time.sleep(self._pause(turn))
        finally:
            self._done(turn)

    async def run_async(
        self,
        prepare: Callable[[], Awaitable[T]],
        commit: Callable[[T], R],
        retries: int,
        paths: Iterable[str] = (),
        hopeless: Callable[[T, ContextError], bool] = lambda *_: False,
    ) -> R:
        """The same with a coroutine."""
        import asyncio  # by now its user has imported it

        turn = _Turn(paths)
        try:
            while True:
                await self._let_pass(turn, asyncio.sleep)
                with turn.trying():
                    prepared = await prepare()
                try:
                    return commit(prepared)
                except ContextError as lost:
                    if turn.lost >= retries or hopeless(prepared, lost):
                        raise
                    turn.lose()
                await asyncio.sleep(self._pause(turn))
        finally:
            self._done(turn)

    async def _let_pass(self, turn: _Turn, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Wait for who goes first without holding up the loop, which may be what that needs."""
        waited = 0.0
        while True:
            with self._changed:
                first = self._in_the_way(turn)
                if first is None or waited >= first.courtesy:
                    self._claim(turn)
                    return
            await sleep(_LOOK)
            waited += _LOOK

    def _in_the_way(self, turn: _Turn) -> _Turn | None:
        """Who goes first, if it is somebody else, and not one that this change is a part of."""
        first = self._first
        if first is None or first is turn or first in _own_turns.get() or not first.meets(turn):
            return None
        return first

    def _wait_for(self, first: _Turn) -> None:
        self._changed.wait_for(lambda: self._first is not first, first.courtesy)

    def _claim(self, turn: _Turn) -> None:
        if self._first is None and turn.lost >= _PRIORITY_AFTER:
            self._first = turn

    def _pause(self, turn: _Turn) -> float:
        """Seconds before the next try: longer each time, and not the same for all who lost."""
        if self._first is turn:
            return 0.0
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(turn.lost, 20))
        return random.uniform(0.5, 1.0) * longest

    def _done(self, turn: _Turn) -> None:
        with self._changed:
            if self._first is turn:
                self._first = None
                self._changed.notify_all()
