"""From a call of a process to where it runs, and back to its result."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from ._core import core
from .batches import Batches
from .calls import Call, Process
from .completions import TaskFuture
from .contracts import contract_of
from .errors import EngineClosed
from .exiting import end_thread_at_exit
from .limits import Limits
from .local import is_async
from .map_output import MapOutput
from .names import Registry
from .session import Session
from .waiting import SLICE_MS, wait_quietly

__all__ = ["Dispatcher"]


class Dispatcher:
    """Runs the processes of one engine."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.registry = Registry()

    def function(self, process: Process | str) -> Process:
        """The function that is meant.

        Raises:
            UnknownProcess: no process has that name.
            TypeError: it is neither a function nor a name.
        """
        if isinstance(process, str):
            return self.registry.find(process)
        if not callable(process):
            raise TypeError(
                f"a process is a function or the name of one, not {type(process).__qualname__}"
            )
        return process

    def call(
        self,
        process: Process | str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        limits: Limits,
        *,
        force_parallel: bool = False,
    ) -> Call:
        """Resolve and check a call."""
        self.session.require_open()
        fn = self.function(process)
        return Call(self.session, fn, args, kwargs, limits, force_parallel=force_parallel)

    # -- awaited -------------------------------------------------------------------------------

    async def execute(self, call: Call) -> Any:
        """Run it and wait on the running loop."""
        from . import awaiting

        if call.in_pool:
            return await awaiting.await_task(call)
        if call.parallel or not is_async(call.fn):
            return await awaiting.await_future(self._on_thread(call), call)
        if call.limits.timeout is None:
            return await call.awaited()
        return await awaiting.within(call.awaited(), call)

    # -- blocking ------------------------------------------------------------------------------

    def run(self, call: Call) -> Any:
        """Run it and wait in this thread, also while a loop is running in it."""
        if call.in_pool:
            return self._wait_for_task(call)
        if call.limits.timeout is None and not _needs_own_thread(call):
            return call.here_to_the_end()
        future = self._on_thread(call)
        wait_quietly(future, call.limits.timeout)
        if not future.done():
            from .awaiting import left_running

            raise left_running(call)
        return future.result()

    def _wait_for_task(self, call: Call) -> Any:
        prepared = call.prepare()
        ended = taken = False
        try:
            small = prepared.run(self.session.engine)
            if small is None:
                wait_for_task(prepared.task)
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

    # -- as a future ---------------------------------------------------------------------------

    def submit(self, call: Call) -> Future[Any]:
        """Begin it, and give a future."""
        if not call.in_pool:
            return self._on_thread(call)
        prepared = call.prepare()
        completions = self.session.completions()
        future = TaskFuture()
        tag = completions.expect(future, call.take)
        try:
            task = prepared.submit(self.session.engine, queue=completions.value, tag=tag)
        except BaseException:
            completions.forget(tag)
            prepared.let_go(ended=False)
            raise
        future.ends_with(task)
        return future

    def _on_thread(self, call: Call) -> Future[Any]:
        session = self.session
        threads = session.worker_threads if call.parallel else None
        return (threads or session.host_threads).submit(call.here_to_the_end)

    # -- a batch of a map ----------------------------------------------------------------------

    def batches(self, fn: Process, limits: Limits, output: MapOutput | None = None) -> Batches:
        """What sends the batches of one map."""
        from .map_tasks import LocalBatches, PoolBatches

        self.session.require_open()
        batches = PoolBatches if self.maps_in_workers(fn) else LocalBatches
        return batches(self.session, fn, limits, output)

    def maps_in_workers(self, fn: Process) -> bool:
        """Whether worker processes run the items of a map of this function."""
        contract = contract_of(fn)
        return self.session.options.processes and (contract is None or contract.parallel)


def wait_for_task(task: int) -> None:
    """Wait until a task has ended, in slices so that Ctrl-C gets through."""
    while not core().wait(task, SLICE_MS):
        pass


def _needs_own_thread(call: Call) -> bool:
    """Whether a loop runs in this thread already and the process needs one of its own."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not is_async(call.fn):
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
