"""Batches of a map as tasks: in the pool, or on threads of this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from . import tasks
from ._core import SmallResult, core
from ._status import InvalidArgument
from .calls import Call, committing
from .contracts import contract_of
from .declared_inputs import checked_inputs, heavy_keys
from .dispatch import wait_for_task
from .errors import EngineClosed, ForkedProcessError
from .exiting import end_thread_at_exit
from .first_ends import FirstEnds
from .limits import Limits
from .map_output import MapOutput
from .session import Session
from .waiting import in_slices, wait_quietly

__all__ = ["LocalBatches", "PoolBatches"]

Item = tuple[Any, ...]


class _Batches:
    """What all batches of one map share."""

    def __init__(
        self,
        session: Session,
        fn: Callable[..., Any],
        limits: Limits,
        output: MapOutput | None = None,
    ) -> None:
        self._session = session
        self._fn = fn
        self._limits = limits
        self._output = output
        self._rng_key = session.next_rng_key()


class PoolBatches(_Batches):
    """Sends the batches of one map to worker processes."""

    def __init__(
        self,
        session: Session,
        fn: Callable[..., Any],
        limits: Limits,
        output: MapOutput | None = None,
    ) -> None:
        super().__init__(session, fn, limits, output)
        self._contract = contract_of(fn)
        self._function = session.functions.handle(fn)
        self._commit = committing(session, fn)
        self._ends: FirstEnds | None = None

    def wait_for_any(self, batches: Sequence[_PoolBatch]) -> int:
        """Wait until one of them has ended, and give its place."""
        if self._ends is None:
            self._ends = FirstEnds(self._session.engine)
        return self._ends.wait([batch.task for batch in batches])

    def submit(self, first: int, items: list[Item], awaited: bool) -> _PoolBatch:
        """Send a batch whose first item has the index `first`."""
        session = self._session
        session.require_open()
        session.expect_logs()
        state = checked_inputs(session, self._contract, self._fn, items[0], {})
        prepared = tasks.PreparedCall(
            self._function,
            tasks.encode_batch(first, items),
            keys=heavy_keys(self._contract),
            at=None if state is None else state.heavy,
            timeout_ms=self._limits.timeout_ms,
            retries=self._limits.retries,
            rng_key=self._rng_key,
            output=None if self._output is None else self._output.handle,
        )
        return _PoolBatch(session, prepared, self._commit, awaited)


class _PoolBatch:
    def __init__(
        self,
        session: Session,
        prepared: tasks.PreparedCall,
        commit: Callable[[Sequence[Any]], None],
        awaited: bool,
    ) -> None:
        self._engine = session.engine
        self._commit = commit
        self._small: SmallResult | None = None
        self._queue = session.loops.of_running_loop() if awaited else None
        try:
            self.task = prepared.submit(self._engine)
        except BaseException:
            prepared.let_go(ended=False)
            raise

    def wait(self) -> None:
        wait_for_task(self.task)

    async def ended(self) -> None:
        assert self._queue is not None, "not begun to be awaited"
        self._small = await self._queue.end_of(self.task)

    def take(self) -> tuple[list[Any], BaseException | None]:
        try:
            values, failure = tasks.batch_outcome(self._engine, self.task, self._small)
        except EngineClosed:
            end_thread_at_exit()
            raise
        finally:
            self._release()
        self._commit(values)
        return values, failure

    def cancel(self) -> None:
        # A map that was not read to its end is cancelled by the garbage collector, perhaps in a
        # forked child, which has nothing to cancel.
        with contextlib.suppress(ForkedProcessError):
            with contextlib.suppress(InvalidArgument):  # its result was taken, and nobody asked
                core().cancel(self.task)
            self._release()

    def _release(self) -> None:
        core().release(self.task)


class LocalBatches(_Batches):
    """Runs the batches of one map on threads of this process."""

    def submit(self, first: int, items: list[Item], awaited: bool) -> _LocalBatch:
        """Run a batch whose first item has the index `first`."""
        session = self._session
        session.require_open()
        threads = session.worker_threads or session.host_threads
        return _LocalBatch(threads.submit(lambda worker: self._run(first, items, worker)))

    def wait_for_any(self, batches: Sequence[_LocalBatch]) -> int:
        """Wait until one of them has ended, and give its place."""
        futures = [batch.future for batch in batches]
        in_slices(lambda limit: bool(wait(futures, limit, FIRST_COMPLETED).done))
        return next(place for place, future in enumerate(futures) if future.done())

    def _run(
        self, first: int, items: list[Item], worker: int
    ) -> tuple[list[Any], BaseException | None]:
        values: list[Any] = []
        for index, args in enumerate(items, first):
            try:
                value = self._call(index, args, worker)
            except BaseException as failure:  # as in a worker
                return values, failure
            values.append(value)
        return values, None

    def _call(self, index: int, args: Item, worker: int) -> Any:
        row = None if self._output is None else self._output.row(index)
        call = Call(
            self._session,
            self._fn,
            args,
            {},
            self._limits,
            rng_key=self._rng_key,
            item=index,
            row=row,
        )
        return call.here_to_the_end(worker)


class _LocalBatch:
    def __init__(self, future: Future[Any]) -> None:
        self.future = future

    def wait(self) -> None:
        wait_quietly(self.future)

    async def ended(self) -> None:
        from .awaiting import await_settled

        await await_settled(self.future)

    def take(self) -> tuple[list[Any], BaseException | None]:
        result: tuple[list[Any], BaseException | None] = self.future.result()
        return result

    def cancel(self) -> None:
        self.future.cancel()
