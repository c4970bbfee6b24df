"""Learning that tasks have ended, without a thread of the caller's waiting for each.

::

    asyncio loop ──add_reader── queue of that loop      one per loop, polled on its own thread
    completion thread ──poll─── queue of the engine     futures of submit(), log records

Two loops on one queue would take each other's events. And a descriptor is closed only after its
loop has stopped polling it: its number may belong to something else of the user's the moment after.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from typing import TYPE_CHECKING, Any

from ._core import Handle, SmallResult, core
from .collected import Collector, End
from .errors import EngineClosed, TheusError
from .exiting import end_thread_at_exit
from .waiting import InterruptibleFuture

if TYPE_CHECKING:
    import asyncio

__all__ = ["CompletionThread", "LoopQueue", "LoopQueues", "TaskFuture"]

Take = Callable[[int, SmallResult | None], Any]
"""What a task gave, by its handle and its result if that was small; or raises how else it ended."""

_PATIENCE = 5.0
# How long a coroutine that awaits one small task after the other may keep the loop to itself.
_POLLING = 0.002
# Short enough for Ctrl-C to be noticed.
_TICK = 0.1
_tags = itertools.count(1)


class LoopQueue:
    """Ends of the tasks that one asyncio loop awaits. Used on the loop's thread only."""

    def __init__(self, engine: int, loop: asyncio.AbstractEventLoop) -> None:
        handle, fd = core().queue_open(engine, logs=False)
        self._handle = Handle(handle)
        self._fd = fd
        self._collector = Collector(handle)
        self._waiting: dict[int, asyncio.Future[SmallResult | None]] = {}
        self._loop = weakref.ref(loop)
        self._closing = False
        self._suspended = 0.0  # when the loop last had its turn
        self._ticking = False
        loop.add_reader(fd, self._drain)

    def may_poll(self) -> bool:
        """Whether the loop may be held up for a moment: nothing else is ready to run on it, and
        it has looked at its timers and sockets just now."""
        loop = self._loop()
        # Other loops than asyncio's own do not say what is ready; there we always sleep.
        ready = getattr(loop, "_ready", True)
        return not ready and time.monotonic() - self._suspended < _POLLING

    async def end_of(self, task: int) -> SmallResult | None:
        """Suspend until the task has ended; its result if that is small, and was taken."""
        loop = self._loop()
        assert loop is not None
        tag = next(_tags)
        future: asyncio.Future[SmallResult | None] = loop.create_future()
        self._waiting[tag] = future
        if not self._ticking:
            self._tick()
        try:
            core().announce(task, self._handle.value, tag)
            return await future
        finally:
            self._suspended = time.monotonic()
            self._waiting.pop(tag, None)
            if self._closing and not self._waiting:
                self.detach()

    def _tick(self) -> None:
        """Wake the loop now and then while something is awaited.

        Jupyter answers its stop button by a signal handler that only gives the loop something to
        do; a loop that sleeps would not look at it before the task ends.
        """
        loop = self._loop()
        self._ticking = bool(self._waiting) and loop is not None and not loop.is_closed()
        if self._ticking:
            assert loop is not None
            loop.call_later(_TICK, self._tick)

    def close(self) -> None:
        """Stop polling once all that is awaited has ended."""
        self._closing = True
        if not self._waiting:
            self.detach()

    def detach(self) -> None:
        """Stop polling, then give the descriptor back."""
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._fd)
        self._handle.release()

    def _drain(self) -> None:
        for end in self._collector.ends():
            future = self._waiting.pop(end.tag, None)
            if future is not None and not future.done():
                future.set_result(end.small)
        if self._closing and not self._waiting:
            self.detach()


class LoopQueues:
    """The queues of one engine, one for each loop that uses it."""

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._queues: weakref.WeakKeyDictionary[Any, LoopQueue] = weakref.WeakKeyDictionary()

    def of_running_loop(self) -> LoopQueue:
        """The queue of the loop that runs in this thread."""
        import asyncio  # by now its user has imported it

        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = LoopQueue(self._engine, loop)
            with self._lock:
                # A loop that ran to its end polls nothing any more.
                for other in [o for o in self._queues if o.is_closed()]:
                    self._queues.pop(other).detach()
                self._queues[loop] = queue
        return queue

    def close(self) -> None:
        """Let go of all queues, each on its loop's own thread."""
        with self._lock:
            queues = list(self._queues.items())
            self._queues.clear()
        for loop, queue in queues:
            if loop.is_closed():
                queue.detach()
                continue
            # A loop may close at this moment; then it polls nothing any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.close)


class TaskFuture(InterruptibleFuture):
    """What `submit` gives. Unlike elsewhere, a task that is running can be cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._task = 0
        self._cancel_lock = threading.RLock()
        self._cancellations = itertools.repeat(True, 1)  # whose first is to be told

    def cancel(self) -> bool:
        """End the task, also a running one: its worker is replaced. False: it has ended."""
        with self._cancel_lock:
            if self.cancelled():
                return True
            if not super().cancel():
                return False
            # At any moment a signal handler may cancel as well.
            if next(self._cancellations, False):
                self.set_running_or_notify_cancel()  # tells those who wait in as_completed()
        if self._task:
            with contextlib.suppress(TheusError):  # it has ended and was taken meanwhile
                core().cancel(self._task)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, and give it or raise what the task raised."""
        try:
            return super().result(timeout)
        except CancelledError:
            end_thread_at_exit()
            raise
        finally:
            del self  # as there

    def ends_with(self, task: int) -> None:
        """The task whose end resolves this future."""
        self._task = task

    def finish(self, take: Callable[[], Any]) -> bool:
        """Set what `take` gives or raises, and tell whether it was called: not if the future was
        cancelled meanwhile."""
        if self.done():
            return False
        try:
            result = take()
        except EngineClosed:
            self.cancel()
        except BaseException as failure:
            with contextlib.suppress(InvalidStateError):
                self.set_exception(failure)
        else:
            try:  # noqa: SIM105  # contextlib.suppress takes 1 µs
                self.set_result(result)
            except InvalidStateError:
                pass
        finally:
            del self  # what was raised keeps this frame: see InterruptibleFuture.result
        return True


class CompletionThread:
    """One daemon thread that resolves the futures of one engine and forwards log records."""

    def __init__(self, engine: int) -> None:
        self._engine = engine
        handle, self._fd = core().queue_open(engine, logs=True)
        self._handle = Handle(handle)
        # Guards the number below, which others get once it is closed.
        self._waking = threading.RLock()
        try:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            self._handle.release()
            raise TheusError(
                f"eventfd: {error}: close files and sockets, or raise the limit with `ulimit -n`"
            ) from error
        self._collector = Collector(handle)
        self._waiting: dict[int, tuple[TaskFuture, Take]] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="theus-completion", daemon=True)
        self._thread.start()

    @property
    def value(self) -> int:
        """The library's handle of the queue."""
        return self._handle.value

    def expect(self, future: TaskFuture, take: Take) -> int:
        """A tag for a task whose end resolves `future` with ``take(handle, small result)``."""
        tag = next(_tags)
        self._waiting[tag] = future, take
        return tag

    def forget(self, tag: int) -> None:
        """That task was not submitted after all."""
        self._waiting.pop(tag, None)

    def futures(self) -> list[TaskFuture]:
        """Those that are not resolved yet."""
        return [future for future, _ in list(self._waiting.values())]

    def stop(self) -> None:
        """Resolve what has ended, then end the thread. What is left is cancelled.

        Once more waits for the end as well, and does what is not done yet.
        """
        self._stopping = True
        with self._waking:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._thread:
            # Longer than that only a user's callback takes, which is then left to itself.
            self._thread.join(_PATIENCE)
        with self._waking:
            wake, self._wake = self._wake, -1
            if wake >= 0:
                os.close(wake)
        for future in self.futures():
            future.cancel()
        self._waiting.clear()
        self._handle.release()

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        stopping = False
        while not stopping:
            poller.poll()
            stopping = self._stopping  # read before draining: what ended before is taken
            self._drain()

    def _drain(self) -> None:
        for end in self._collector.ends():
            # Callbacks of futures may raise what concurrent.futures does not catch (SystemExit,
            # say). All other futures are to be resolved still.
            try:
                self._take(end)
            except BaseException:
                _tell()

    def _take(self, end: End) -> None:
        if end.is_log:
            forward_logs(self._engine)
            return
        entry = self._waiting.pop(end.tag, None)
        try:
            if entry is not None:
                _resolve(end, *entry)
        finally:
            del entry  # what was raised keeps this frame: see InterruptibleFuture.result


def _resolve(end: End, future: TaskFuture, take: Take) -> None:
    try:
        if not future.finish(lambda: take(end.task, end.small)) and end.small is None:
            core().release(end.task)
    finally:
        del future  # what was raised keeps this frame: see InterruptibleFuture.result


def _tell() -> None:
    """Tell of what is being handled as of what ends a thread."""
    what = threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
    try:
        threading.excepthook(what)
    except BaseException:
        pass  # without a stderr the default one raises
    finally:
        del what  # the traceback in it refers to this frame


def forward_logs(engine: int) -> None:
    """Hand the records that workers sent to this process' logging."""
    try:
        records = json.loads(core().logs(engine))
    except TheusError:  # closed meanwhile
        return
    for record in records:
        logger = logging.getLogger(record["logger"])
        if not logger.isEnabledFor(record["level"]):
            continue
        extra = {"theus_worker": record["worker"], "theus_task": record["task"]}
        made = logger.makeRecord(
            logger.name, record["level"], "(worker)", 0, record["message"], (), None, extra=extra
        )
        try:
            logger.handle(made)
        except Exception:  # of a filter; handlers tell of their own
            _tell()
