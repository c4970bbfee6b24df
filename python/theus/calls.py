"""One call of a process: resolved, checked, and what becomes of its result."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import tasks
from ._core import SmallResult
from .bounds import Bounds
from .context import DOMAIN, Domain, Inputs, TaskContext, WorkerInfo, store_row
from .contracts import contract_of
from .declared_inputs import checked_inputs, heavy_keys
from .errors import ContextError
from .host_process import HostRun
from .limits import Limits
from .local import call_process, logger_name, run_async
from .outputs import commit_of, may_commit
from .session import Session
from .state import State
from .structures import StateUpdate

__all__ = ["Call", "Process", "committing", "context_maker"]

Process = Callable[..., Any]


class Call:
    """One call of one process, resolved and checked but not begun."""

    def __init__(
        self,
        session: Session,
        fn: Process,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        limits: Limits,
        *,
        force_parallel: bool = False,
        rng_key: int | None = None,
        item: int | None = None,
        row: Any = None,
    ) -> None:
        self.session = session
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.limits = limits
        self.contract = contract_of(fn)
        self.name = getattr(fn, "__name__", type(fn).__name__)
        self.parallel = force_parallel or self.contract is None or self.contract.parallel
        self.rng_key = session.next_rng_key() if rng_key is None else rng_key
        self._item = item  # of a map: the index
        self._row = row  # of a map with an output: what ctx.out is
        self.state = checked_inputs(session, self.contract, fn, args, kwargs)

    @property
    def in_pool(self) -> bool:
        """Whether a worker process runs it."""
        return self.parallel and self.session.options.processes

    def prepare(self) -> tasks.PreparedCall:
        """The call in the library's terms."""
        self.session.expect_logs()
        # This lives until the result is taken. What the task holds it must not hold as well: an
        # allocation in a full heap waits for what comes back with tasks.
        args, self.args = self.args, ()
        kwargs, self.kwargs = self.kwargs, {}
        state, self.state = self.state, None
        return tasks.PreparedCall(
            self.session.functions.handle(self.fn),
            tasks.encode_call(args, kwargs),
            keys=heavy_keys(self.contract),
            at=None if state is None else state.heavy,
            timeout_ms=self.limits.timeout_ms,
            retries=self.limits.retries,
            rng_key=self.rng_key,
        )

    def finish(self, result: Any) -> Any:
        """Commit what the result is to change; gives the result."""
        if may_commit(self.contract, result):
            self.session.committer.apply(commit_of(self.name, self.contract, result))
        return result

    def take(self, task: int, small: SmallResult | None = None) -> Any:
        """The result of a task that has ended; a small one was taken already, perhaps."""
        if small is not None:
            return self.finish(tasks.decode_small(small))
        return self.finish(tasks.outcome(self.session.engine, task))

    def here_to_the_end(self, worker: int = 0) -> Any:
        """Run it in this thread, with a loop of its own if it is async, and commit.

        What is not parallel is run again when its commit has lost.
        """
        if self.parallel:
            state, self.state = self.state or self.session.state(), None
            make = context_maker(
                self.session, self.fn, state, self.rng_key, worker, self._item, row=self._row
            )
            result = run_async(lambda: call_process(self.fn, make, self.args, self.kwargs))
            return self.finish(self._stored(result))

        def prepare() -> tuple[HostRun, Any]:
            run = self._begin()
            with run.running():
                result = self._stored(run_async(lambda: self._call(run, worker)))
            return run, run.end(self.session.committer, result)

        return self.session.contention.run(
            prepare, self._commit, self.limits.cas_retries, self._outputs(), _has_lost_to_itself
        )

    async def awaited(self) -> Any:
        """The same for an async process, on the running loop."""

        async def prepare() -> tuple[HostRun, Any]:
            run = self._begin()
            with run.running():
                result = await self._call(run, 0)
            return run, run.end(self.session.committer, result)

        return await self.session.contention.run_async(
            prepare, self._commit, self.limits.cas_retries, self._outputs(), _has_lost_to_itself
        )

    def _stored(self, result: Any) -> Any:
        """What is left of a result when its row has been written, if it has one."""
        if self._row is None:
            return result
        store_row(self._row, result)
        return None

    def _outputs(self) -> Sequence[str]:
        return () if self.contract is None else self.contract.outputs

    def _commit(self, prepared: tuple[HostRun, Any]) -> Any:
        run, result = prepared
        return run.commit(self.session.committer, result)

    def _begin(self) -> HostRun:
        """A run on the version that was checked, or when that has lost on the current one."""
        state, self.state = self.state, None
        if state is None:
            found = checked_inputs(self.session, self.contract, self.fn, self.args, self.kwargs)
            state = found or self.session.state()
        return HostRun(self.name, self.contract, state)

    def _call(self, run: HostRun, worker: int) -> Any:
        make = context_maker(
            self.session, self.fn, run.state, self.rng_key, worker, self._item, run, self._row
        )
        return call_process(self.fn, make, self.args, self.kwargs)


def _has_lost_to_itself(prepared: tuple[HostRun, Any], lost: ContextError) -> bool:
    return prepared[0].has_lost_to_itself(lost)


def context_maker(
    session: Session,
    fn: Process,
    state: State,
    rng_key: int,
    worker: int,
    item: int | None = None,
    run: HostRun | None = None,
    row: Any = None,
) -> Callable[[Mapping[str, Any]], TaskContext]:
    """Makes the ctx of a process that runs in this process, from the call's arguments.

    Without a `run` the process can write nothing, as in a worker.
    """
    bounds = Bounds(logger_name(fn), contract_of(fn)) if run is None else run.bounds

    def domain(arguments: Mapping[str, Any]) -> Any:
        if run is not None:
            return run.domain(arguments)
        return Domain(arguments, lambda: state.data.get(DOMAIN, {}), bounds)

    return lambda arguments: TaskContext(
        input=Inputs(arguments),
        domain=domain(arguments),
        heavy=bounds.heavy(state.heavy),
        state=state,
        log=logging.getLogger(logger_name(fn)),
        worker=WorkerInfo(worker, os.getpid()),
        seed=session.options.seed,
        rng_key=rng_key,
        item=item,
        out=row,
    )


def committing(session: Session, fn: Process) -> Callable[[Sequence[Any]], None]:
    """Commits what results of `fn` are to change, if `fn` is a process that does so."""
    contract = contract_of(fn)
    name = getattr(fn, "__name__", type(fn).__name__)
    declares = contract is not None and bool(contract.outputs)

    def commit(results: Sequence[Any]) -> None:
        # Of a million numbers none changes anything, and to ask each costs as much as all else.
        if declares or any(issubclass(kind, StateUpdate) for kind in set(map(type, results))):
            for result in results:
                session.committer.apply(commit_of(name, contract, result))

    return commit
