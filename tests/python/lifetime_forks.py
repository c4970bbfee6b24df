"""A forked child of the host: it reads what it inherited, is refused by theus, and ends quietly."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from lifetime_model import View
from theus import ForkedProcessError, TheusEngine

PATIENCE = 60  # seconds, then the child is ended and the test fails


def fork_and_look(engine: TheusEngine, views: Sequence[View]) -> None:
    """Fork a child that does all that, and wait for its end.

    Raises:
        AssertionError: it saw something else, or did not end by itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        _look(engine, views)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"the forked child ended with {code}; what it printed is on stderr"


def _look(engine: TheusEngine, views: Sequence[View]) -> NoReturn:
    """The child's part."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        failed: list[str] = []
        sys.unraisablehook = lambda what: failed.append(repr(what.exc_value))
        for view in views:
            view.check()
        _refused(lambda: engine.heavy.alloc("k0", 3))
        _refused(lambda: engine.run(pow, 2, 3))
        _refused(lambda: engine.state)
        _refused(TheusEngine)
        for view in views:
            view.real = None  # its finalizers run, and must touch nothing
        gc.collect()
        assert not failed, failed
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _refused(call: Callable[[], object]) -> None:
    try:
        call()
    except ForkedProcessError:
        return
    raise AssertionError("theus served a forked child")
