"""Running a process in the calling process: those that are not parallel, and all of them when
THEUS_USE_PROCESSES is 0."""

from __future__ import annotations

import collections
import concurrent.futures
import contextvars
import inspect
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .context import TaskContext
from .context_parameter import passes_ctx
from .errors import EngineClosed
from .functions import is_importable
from .waiting import InterruptibleFuture, in_slices

__all__ = ["DaemonThreads", "call_process", "is_async", "logger_name", "run_async"]


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004  (an instance with an async __call__)
    )


def call_process(
    fn: Callable[..., Any],
    make_ctx: Callable[[Mapping[str, Any]], TaskContext],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call a process as a worker would.

    With a context it gets those keyword arguments that it has parameters for; all of them, and
    the positional ones by their names, are in ``ctx.input``. Without one it is called as it is.
    """
    if not passes_ctx(fn):
        return fn(*args, **kwargs)
    names, keywords = _parameters(fn)
    ctx = make_ctx({**dict(zip(names, args, strict=False)), **kwargs})
    if keywords is not None:
        kwargs = {k: v for k, v in kwargs.items() if k in keywords}
    return fn(ctx, *args, **kwargs)


def run_async(call: Callable[[], Any]) -> Any:
    """Call, and run the coroutine that it may give to its end, on a loop of its own."""
    result = call()
    if not inspect.isawaitable(result):
        return result
    import asyncio  # slow to import, and only async processes need it

    return asyncio.run(_awaited(result))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _parameters(fn: Callable[..., Any]) -> tuple[list[str], set[str] | None]:
    """Names that positional arguments fill, and those of keyword arguments (None: any)."""
    kinds = inspect.Parameter
    parameters = list(inspect.signature(fn).parameters.values())
    any_keyword = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
    if parameters[0].kind is not kinds.VAR_POSITIONAL:
        parameters = parameters[1:]  # the context itself
    by_place = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    by_name = (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    names = [p.name for p in parameters if p.kind in by_place]
    return names, None if any_keyword else {p.name for p in parameters if p.kind in by_name}


def logger_name(fn: Callable[..., Any]) -> str:
    """What ctx.log is called: where the function can be imported from, else its bare name."""
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    if isinstance(fn, types.FunctionType) and is_importable(fn):
        return f"{fn.__module__}.{name}"
    return name


class DaemonThreads:
    """Threads that run calls one after the other, at most `limit` at once.

    They are daemons: a program that ends does not wait for what they run, as it does not wait for
    worker processes either.
    """

    def __init__(self, limit: int, name: str) -> None:
        self.limit = limit
        self._name = name
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._calm = threading.Condition(self._lock)
        self._queue: collections.deque[_Work] = collections.deque()
        self._threads: dict[int, threading.Thread] = {}
        self._idle = 0
        self._closed = False
        self.running = 0
        self.done = 0
        self.failed = 0

    def submit(self, call: Callable[[int], Any]) -> concurrent.futures.Future[Any]:
        """Run ``call(index)`` on a thread; the index tells the threads apart, from 0."""
        future = InterruptibleFuture()
        work = _Work(future, call, contextvars.copy_context())
        with self._lock:
            if self._closed:
                raise EngineClosed("the engine is closed")
            self._queue.append(work)
            if self._idle >= len(self._queue) or len(self._threads) >= self.limit:
                self._work.notify()
            else:
                self._start_thread()
        return future

    @property
    def queued(self) -> int:
        return len(self._queue)

    def drain(self) -> None:
        """Wait until nothing is queued or running."""
        with self._lock:
            # Each slice looks again: a notification may come when the slice before has just ended.
            in_slices(lambda s: self._calm.wait_for(lambda: not (self._queue or self.running), s))

    def close(self) -> None:
        """Take no more calls and drop those that have not begun; idle threads end."""
        with self._lock:
            self._closed = True
            dropped = list(self._queue)
            self._queue.clear()
            self._work.notify_all()
        for work in dropped:
            work.future.cancel()
            work.future.set_running_or_notify_cancel()

    def _start_thread(self) -> None:
        index = min(set(range(len(self._threads) + 1)) - set(self._threads))
        thread = threading.Thread(
            target=self._run, args=(index,), name=f"{self._name}-{index}", daemon=True
        )
        self._threads[index] = thread
        thread.start()

    def _run(self, index: int) -> None:
        while True:
            with self._lock:
                self._idle += 1
                while not self._queue and not self._closed:
                    self._work.wait()
                self._idle -= 1
                if not self._queue:
                    del self._threads[index]
                    return
                work = self._queue.popleft()
                self.running += 1
            ok = work.run(index)
            with self._lock:
                self.running -= 1
                self.done += ok
                self.failed += not ok
                if not self._queue and not self.running:
                    self._calm.notify_all()
            del work  # what it holds must not live until the next call comes


class _Work:
    __slots__ = ("call", "context", "future")

    def __init__(
        self,
        future: concurrent.futures.Future[Any],
        call: Callable[[int], Any],
        context: contextvars.Context,
    ) -> None:
        self.future = future
        self.call = call
        self.context = context

    def run(self, index: int) -> bool:
        if not self.future.set_running_or_notify_cancel():
            return True
        try:
            result = self.context.run(self.call, index)
        except BaseException as failure:
            self.future.set_exception(failure)
            return False
        else:
            self.future.set_result(result)
            return True
        finally:
            del self  # what was raised keeps this frame: see InterruptibleFuture.result
