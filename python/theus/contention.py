"""Trying again after a lost compare-and-swap, so that nobody loses for ever."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .errors import ContextError

__all__ = ["CAS_RETRIES", "Contention"]

T = TypeVar("T")
R = TypeVar("R")

CAS_RETRIES = 100  # after that many losses in a row something else is wrong
# Who has lost so often goes first.
_PRIORITY_AFTER = 3
# Seconds that others wait for one that goes first: it may be stuck in code of the user's.
_COURTESY = 1.0
_FIRST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.05


class Contention:
    """The turns of threads that change the state of one engine, and try again until they have.

    A plain compare_and_swap knows nothing of it: it is tried once.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._first: int | None = None  # the thread that goes first; guarded by the condition

    def run(self, prepare: Callable[[], T], commit: Callable[[T], R], retries: int) -> R:
        """What `commit` makes of what `prepare` gives.

        Both are called again when the commit raises a ContextError, at most `retries` times.
        """
        me = threading.get_ident()
        lost = 0
        claimed = False
        try:
            while True:
                claimed = self._turn(me, claim=lost >= _PRIORITY_AFTER) or claimed
                prepared = prepare()
                try:
                    return commit(prepared)
                except ContextError:
                    if lost == retries:
                        raise
                lost += 1
                if not claimed:
                    time.sleep(_pause(lost))
        finally:
            if claimed:
                self._done()

    async def run_async(
        self, prepare: Callable[[], Awaitable[T]], commit: Callable[[T], R], retries: int
    ) -> R:
        """The same with a coroutine.

        It never goes first: a thread cannot tell the coroutines that it runs from each other.
        """
        import asyncio  # by now its user has imported it

        lost = 0
        while True:
            prepared = await prepare()
            try:
                return commit(prepared)
            except ContextError:
                if lost == retries:
                    raise
            lost += 1
            await asyncio.sleep(_pause(lost))

    def _turn(self, me: int, *, claim: bool) -> bool:
        """Wait for who goes first; True: this thread does now, and is to say when it is done."""
        with self._changed:
            if self._first == me:
                return False  # a change within a change
            self._changed.wait_for(lambda: self._first is None, _COURTESY)
            if not claim or self._first is not None:
                return False
            self._first = me
            return True

    def _done(self) -> None:
        with self._changed:
            self._first = None
            self._changed.notify_all()


def _pause(lost: int) -> float:
    """Seconds before the next try: longer each time, and not the same for all who lost together."""
    return random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**lost)
