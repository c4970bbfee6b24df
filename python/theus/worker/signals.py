"""When signal handlers of tasks may run: not while a frame is half done.

Python runs a signal handler on the main thread between any two of its instructions, and what the
handler raises (a timeout, mostly) ends what was going on there. Half of a frame would be lost, or a
lock stay taken, and the worker could not be used again. So what must be done whole is marked
`uninterrupted`: a handler that comes in the middle of it runs when it is over. Inside it, where the
worker sleeps until the host answers, `interruptible` lets handlers in.

Finalizers cannot be put off, but what they raise goes nowhere.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_set_handler, _get_handler = signal.signal, signal.getsignal
_this_thread = threading.get_ident

# Written by the main thread alone, which is where handlers run.
_main = threading.get_ident()
_depth = 0  # how many marked functions are being run
_put_off: dict[int, tuple[Callable[..., Any], FrameType | None]] = {}  # by number of the signal


def install() -> None:
    """Have every handler that is set from now on put off where it must be."""
    signal.signal = _signal
    signal.getsignal = _getsignal
    os.register_at_fork(after_in_child=_be_main)


def uninterrupted(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function that handlers must not interrupt."""

    @functools.wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        global _depth
        if _this_thread() != _main:
            return function(*args, **kwargs)
        before = _depth
        try:
            _depth = before + 1
            return function(*args, **kwargs)
        finally:
            _depth = before
            if _put_off and not before:
                _run_put_off()

    return whole


def interruptible(wait: Callable[[], object]) -> None:
    """Let handlers in, those that were put off first, and as long as `wait` takes."""
    global _depth
    if _this_thread() != _main:
        wait()
        return
    depth, _depth = _depth, 0
    try:
        _run_put_off()
        wait()
        _depth = depth
    except BaseException:  # with nothing before the next line that a handler could interrupt
        _depth = depth
        raise


def _run_put_off() -> None:
    if _put_off:
        number, (handler, frame) = _put_off.popitem()
        try:
            handler(number, frame)
        finally:
            _run_put_off()  # each is run, whatever another raises


class _Handler:
    """A handler of a task's, as Python has it."""

    __slots__ = ("original",)

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        if _depth:
            _put_off[number] = self.original, frame  # once, as pending signals are
            return None
        try:
            return self.original(number, frame)
        finally:
            _run_put_off()  # it may have come before those were run, and now they would not be


@functools.wraps(signal.signal)
def _signal(signalnum: int, handler: Any) -> Any:
    return _original(_set_handler(signalnum, _Handler(handler) if callable(handler) else handler))


@functools.wraps(signal.getsignal)
def _getsignal(signalnum: int) -> Any:
    return _original(_get_handler(signalnum))


def _original(handler: Any) -> Any:
    return handler.original if isinstance(handler, _Handler) else handler


def _be_main() -> None:
    """In a forked child: the thread that forked is the main one, and has no frames to do."""
    global _main, _depth
    _main = threading.get_ident()
    _depth = 0
    _put_off.clear()
