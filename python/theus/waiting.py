"""Waiting in Python so that Ctrl-C and other signals get through.

Python runs signal handlers on the main thread, between two of its instructions. A signal that
comes after the last of them and before the kernel has put the thread to sleep wakes nobody: the
handler runs when the wait is over, which may be never. On a busy machine that is no rare moment,
since the thread gives up the interpreter's lock just then, and whom that wakes may take its
processor. So the main thread never waits for long at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["SLICE_MS", "InterruptibleFuture", "in_slices", "wait_quietly"]

SLICE_MS = 100  # half of what an interrupt may take
SLICE = SLICE_MS / 1000  # seconds


def in_slices(wait: Callable[[float | None], bool], timeout: float | None = None) -> bool:
    """Wait for something: on the main thread in slices, on others at one go.

    Args:
        wait: waits for so many seconds (None: for ever), and tells whether it has come.
        timeout: seconds to wait at most; None: for ever.

    Returns:
        Whether it has come.
    """
    if threading.current_thread() is not threading.main_thread():
        return wait(timeout)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE if deadline is None else deadline - time.monotonic()
        if wait(max(0.0, min(left, SLICE))):
            return True
        if left <= SLICE and deadline is not None:
            return False


def wait_quietly(future: Future[Any], timeout: float | None = None) -> None:
    """Wait for a future without raising, at most `timeout` seconds."""
    if future.done():
        return
    # Not with a callback: those of waits that timed out would pile up.
    changed = future._condition

    def wait(seconds: float | None) -> bool:
        with changed:
            return changed.wait_for(future.done, seconds)

    in_slices(wait, timeout)


class InterruptibleFuture(Future[Any]):
    """A future whose waits end with Ctrl-C on the main thread, whenever it is pressed."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, and give it or raise what was raised instead."""
        wait_quietly(self, timeout)
        try:
            return super().result(0)
        finally:
            # What is raised keeps this frame, which must not keep the future that keeps what is
            # raised: all of them, with the arrays of the task, would be garbage for long.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, and give what was raised; None: there is a result."""
        wait_quietly(self, timeout)
        try:
            return super().exception(0)
        finally:
            del self
