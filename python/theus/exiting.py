"""The end of the program: engines are closed, and threads that still wait for tasks end.

Imported with the engine's module, before there is any engine: hooks that the program registers from
then on run before this one, and find their engines open.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from typing import Protocol

from .errors import TheusError

__all__ = ["close_at_exit", "end_thread_at_exit"]


class Closable(Protocol):
    """What can be closed, more than once."""

    def close(self) -> None: ...


_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_exiting = False


def close_at_exit(opened: Closable) -> None:
    """Have something closed at the end of the program, if it is still there."""
    _open.add(opened)


def end_thread_at_exit() -> None:
    """End a daemon thread whose task was ended because the whole program ends.

    It could do nothing about an EngineClosed any more, only print it. SystemExit ends a thread
    without a word.
    """
    if _exiting and threading.current_thread().daemon:
        raise SystemExit


def _end() -> None:
    global _exiting
    _exiting = True
    for opened in list(_open):
        # A program that ends already does not notice another Ctrl-C.
        with contextlib.suppress(TheusError, KeyboardInterrupt):
            opened.close()


atexit.register(_end)
