"""The end of the program, as the threads see it that still wait for tasks then."""

from __future__ import annotations

import threading

__all__ = ["begin", "end_thread_at_exit"]

_exiting = False


def begin() -> None:
    """From now on engines are closed because the whole program ends."""
    global _exiting
    _exiting = True


def end_thread_at_exit() -> None:
    """End a daemon thread whose task was ended because the whole program ends.

    It could do nothing about an EngineClosed any more, only print it. SystemExit ends a thread
    without a word.
    """
    if _exiting and threading.current_thread().daemon:
        raise SystemExit
