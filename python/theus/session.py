"""An open engine of the library, with everything in this process that hangs on it.

A session ends by `close`, when the engine that holds it is dropped, or at exit. At exit the tasks
that still run are ended: a program does not wait for results that nobody can take any more.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref
from typing import Any

from ._core import Handle, core, is_forked_child
from .commits import Committer
from .completions import CompletionThread, LoopQueues, forward_logs
from .contention import Contention
from .errors import EngineClosed, TheusError
from .exiting import close_at_exit, end_thread_at_exit
from .functions import FunctionCache
from .local import DaemonThreads
from .settings import Settings
from .snapshot_heavy import SnapshotHeavy
from .state import State, decode_state
from .updates import lookup_in
from .waiting import SLICE_MS

__all__ = ["Session"]

# Host processes on threads, as many as concurrent.futures would run.
HOST_THREADS = min(32, (os.cpu_count() or 1) + 4)


class Session:
    """One open engine; see the module."""

    def __init__(self, options: Settings, handle: Handle, *, strict_cas: bool) -> None:
        self.options = options
        self._parts = parts = _Parts(options, handle)
        # Not when the engine object dies: futures and maps outlive it and hold the session.
        finalizer = weakref.finalize(self, parts.close_in_background)
        finalizer.atexit = False  # the hook below closes at exit
        self._rng_keys = itertools.count(1)
        self.functions = parts.functions
        self.loops = parts.loops
        self.host_threads = parts.host_threads
        self.worker_threads = parts.worker_threads
        self.contention = Contention()
        self.committer = Committer(
            parts.handle,
            strict=strict_cas,
            lookup=lambda path: lookup_in(self.state().data)(path),
        )

    @property
    def engine(self) -> int:
        """The library's handle."""
        return self._parts.handle.value

    @property
    def closed(self) -> bool:
        return self._parts.closed

    def require_open(self) -> None:
        """Raise EngineClosed after `close`, ForkedProcessError in a forked child."""
        self._parts.require_open()

    def next_rng_key(self) -> int:
        """A number for the next call's random stream, counted from 1."""
        return next(self._rng_keys)

    def completions(self) -> CompletionThread:
        """The completion thread, started with the first parallel call."""
        return self._parts.completions()

    def expect_logs(self) -> None:
        """Make sure that the log records of the next calls are forwarded."""
        try:
            self._parts.completions()
        except RuntimeError as failure:
            if isinstance(failure, TheusError):
                raise
            # In an exit hook no thread can be started any more; `close` forwards what has come.

    def state(self) -> State:
        """The current version."""
        self.require_open()
        handle, version = core().snapshot(self.engine)
        snap = Handle(handle)
        return State(version, lambda: core().export(snap.value), SnapshotHeavy(self.engine, snap))

    def value_at(self, path: str, parsed: tuple[str, ...]) -> tuple[int, Any]:
        """The current version, and what it has at a path; None where there is nothing."""
        self.require_open()
        handle, version = core().snapshot(self.engine)
        try:
            encoded = core().export(handle, path)
        finally:
            core().release(handle)
        return version, lookup_in(decode_state(encoded))(parsed) if encoded else None

    def worker_count(self) -> int:
        """How many calls run at once."""
        if self.worker_threads is not None:
            return self.worker_threads.limit
        return self.options.workers or _cpus()

    def drain(self) -> None:
        """Wait until no task is left."""
        while not self.closed and not core().drain(self.engine, SLICE_MS):
            pass
        self.host_threads.drain()
        if self.worker_threads is not None:
            self.worker_threads.drain()

    def close(self) -> None:
        """End what still runs, and give everything back but the arrays that are in use."""
        self._parts.close()

    def close_when_drained(self) -> None:
        """Close as soon as nothing is left to do, without waiting for it here."""

        def finish() -> None:
            with contextlib.suppress(TheusError):
                self.drain()
            self.close()

        threading.Thread(target=finish, name="theus-close", daemon=True).start()


class _Parts:
    """What a session has to give back. It does not refer to the session, so that can be dropped."""

    def __init__(self, options: Settings, handle: Handle) -> None:
        self._name = options.name
        self.handle = handle
        engine = self.handle.value
        # Reentrant, like all locks of this package: a signal handler or finalizer may use the
        # engine in the thread that holds one.
        self._lock = threading.RLock()
        self.closed = False
        self._completions: CompletionThread | None = None
        self.functions = FunctionCache(engine)
        self.loops = LoopQueues(engine)
        self.host_threads = DaemonThreads(HOST_THREADS, "theus-host")
        # What stands in for worker processes when there are none.
        self.worker_threads = (
            None if options.processes else DaemonThreads(options.workers or _cpus(), "theus-worker")
        )
        close_at_exit(self)

    def require_open(self) -> None:
        core()
        if self.closed:
            end_thread_at_exit()
            raise EngineClosed(
                f"engine {self._name!r} is closed; only arrays and snapshots that were taken "
                "before still work. Open another one with TheusEngine()."
            )

    def completions(self) -> CompletionThread:
        if self._completions is None:
            with self._lock:
                self.require_open()
                if self._completions is None:
                    self._completions = CompletionThread(self.handle.value)
            if self.closed:  # by a signal handler, which could not know of the thread
                self._completions.stop()
        return self._completions

    def close(self) -> None:
        """Every step may be done twice: by two threads at once, each of which returns when the
        engine is closed, and by who closes again after Ctrl-C came between two steps."""
        if is_forked_child():
            return
        with self._lock:
            self.closed = True
        engine, completions = self.handle.value, self._completions
        forward_logs(engine)
        core().close(engine, 0)
        if completions is not None:
            completions.stop()
        self.loops.close()
        self.functions.clear()
        self.host_threads.close()
        if self.worker_threads is not None:
            self.worker_threads.close()

    def close_in_background(self) -> None:
        """For a finalizer: the garbage collector must not wait for processes to end."""
        if not self.closed and not is_forked_child():
            threading.Thread(target=self.close, name="theus-close", daemon=True).start()


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
