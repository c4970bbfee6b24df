"""Waiting on an asyncio loop. Apart from the rest because importing asyncio takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .calls import Call
from .errors import EngineClosed, TaskTimeout
from .exiting import end_thread_at_exit

__all__ = ["await_future", "await_settled", "await_task", "left_running", "on_thread", "within"]


async def await_task(call: Call) -> Any:
    """Send a call to the pool and await its result; cancelling it ends the task."""
    prepared = call.prepare()
    queue = call.session.loops.of_running_loop()
    ended = taken = False
    try:
        small = None
        # A small task is done before this loop would have fallen asleep and been woken again.
        if queue.may_poll():
            small = prepared.run(call.session.engine)
        else:
            prepared.submit(call.session.engine)
        if small is None:
            small = await queue.end_of(prepared.task)
        ended = True
        result = call.take(prepared.task, small)
        taken = True
        return result
    except EngineClosed:
        end_thread_at_exit()
        raise
    finally:
        if not taken:
            prepared.let_go(ended=ended)


async def await_future(future: Future[Any], call: Call) -> Any:
    """Await a call that runs on a thread, for at most its timeout."""
    waiting = asyncio.wrap_future(future)
    if call.limits.timeout is None:
        return await waiting
    done, _ = await asyncio.wait({waiting}, timeout=call.limits.timeout)
    if not done:
        waiting.cancel()
        raise left_running(call)
    return waiting.result()


async def await_settled(future: Future[Any]) -> None:
    """Await the end of a future, however it ends."""
    await asyncio.wait({asyncio.wrap_future(future)})


async def within(coroutine: Any, call: Call) -> Any:
    """Await an async process for at most its timeout, and cancel it then."""
    # Not wait_for: a TimeoutError of the process itself would look like ours.
    task = asyncio.ensure_future(coroutine)
    try:
        done, _ = await asyncio.wait({task}, timeout=call.limits.timeout)
        if done:
            return task.result()
    finally:
        task.cancel()
    await asyncio.wait({task})
    raise TaskTimeout(
        f"{call.name} ran longer than its timeout of {call.limits.timeout} s and was cancelled"
    )


def left_running(call: Call) -> TaskTimeout:
    """For a call on a thread, which cannot be ended from outside."""
    return TaskTimeout(
        f"{call.name} ran longer than its timeout of {call.limits.timeout} s. It runs on a thread "
        "of this process, which cannot be ended; only waiting for it was."
    )


async def on_thread(block: Callable[[], Any]) -> Any:
    """Await something that blocks, on a daemon thread of its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        try:
            result, failure = block(), None
        except BaseException as raised:
            result, failure = None, raised
        # After Ctrl-C the loop may be closed, and nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    def settle(result: Any, failure: BaseException | None) -> None:
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="theus-wait", daemon=True).start()
    return await future
