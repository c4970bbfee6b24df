"""Calls of the library that take their time, made so that Ctrl-C ends the wait for them.

Python raises KeyboardInterrupt between two of its own instructions, not within a call of a C
library. So a long call is made on another thread, and this one waits for it.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

from ._core import release_later
from .waiting import in_slices

__all__ = ["collect", "interruptible"]


def collect() -> None:
    """Collect garbage, so that Ctrl-C meanwhile is not lost.

    What a signal handler raises within a finalizer, Python prints and forgets. So on the main
    thread, which handles signals, the finalizers run on another one.
    """
    if threading.current_thread() is not threading.main_thread():
        gc.collect()
        return
    done = threading.Event()

    def run() -> None:
        try:
            gc.collect()
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="theus-collect", daemon=True).start()
    except RuntimeError:  # the program ends, or has no thread left
        gc.collect()
        return
    in_slices(done.wait)


def interruptible(make: Callable[[], int]) -> int:
    """What `make` gives, a handle of the library; released when nobody waits for it any more.

    Worth a thread only for what takes some 50 ms: most of all, giving pages to a large array.
    """
    if threading.current_thread() is not threading.main_thread():
        return make()  # signals are handled on the main thread only
    call = _Call(make)
    try:
        threading.Thread(target=call.run, name="theus-call", daemon=True).start()
    except RuntimeError:  # the program ends, or has no thread left
        return make()
    try:
        in_slices(call.done.wait)
        return call.take()
    except BaseException:
        call.abandon()
        raise


class _Call:
    """One call on a thread, and the handle that it gives or the exception that it raises."""

    def __init__(self, make: Callable[[], int]) -> None:
        self.done = threading.Event()
        self._make = make
        self._lock = threading.Lock()  # guards the handle, and whether anybody is left to take it
        self._handle = 0
        self._abandoned = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            handle = self._make()
        except BaseException as failure:
            self._failure = failure
        else:
            with self._lock:
                self._handle = handle
                if self._abandoned:
                    self._release()
        self.done.set()

    def take(self) -> int:
        """What the call gave, or raise what it raised."""
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                self._failure = None  # its traceback refers to this frame
        return self._handle

    def abandon(self) -> None:
        """Release what the call gave, or will give."""
        with self._lock:
            self._abandoned = True
            self._release()

    def _release(self) -> None:
        if self._handle:
            release_later(self._handle)
            self._handle = 0
