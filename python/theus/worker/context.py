"""ctx in a worker: made when a task begins, and what it shows when that is looked at.

Most tasks look at little of it. To make all of it took more than anything else in a task that does
nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..context import DOMAIN, Domain, Inputs, TaskContext
from ..state import State, decode_state
from .heavy import TaskHeavy
from .link import STATE
from .log import TaskLogger
from .received import QueuedTask

if TYPE_CHECKING:
    from .functions import Callee
    from .tasks import Runner

__all__ = ["WorkerContext"]


class WorkerContext(TaskContext):
    """The context of one task, or of one item of a batch.

    Args:
        runner: what runs it.
        task: the task.
        callee: its function.
        args, kwargs: the arguments.
        heavy: the task's arrays.
        item: index of the item in its map; None for a call that is not part of one.
        out: its row of the map's output, if that has one.
    """

    # What is not set yet of the slots of a TaskContext, Python asks __getattr__ for.
    __slots__ = ("_args", "_callee", "_kwargs", "_runner", "_task", "_unbounded")

    def __init__(
        self,
        runner: Runner,
        task: QueuedTask,
        callee: Callee,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        heavy: TaskHeavy,
        item: int | None,
        out: Any,
    ) -> None:
        self._runner = runner
        self._task = task
        self._callee = callee
        self._args = args
        self._kwargs = kwargs
        self._item = item
        self._out = out
        self._rng = None
        self._unbounded = heavy
        self.heavy = heavy if callee.bounds is None else callee.bounds.heavy(heavy)

    def __getattr__(self, name: str) -> Any:
        make = _PARTS.get(name)
        if make is None:
            super().__getattr__(name)
        part = make(self)
        setattr(self, name, part)
        return part

    def _make_inputs(self) -> Inputs:
        return Inputs(self._callee.inputs(self._args, self._kwargs))

    def _make_domain(self) -> Domain:
        fetch = self._fetcher(DOMAIN)
        return Domain(self.input, lambda: decode_state(fetch()).get(DOMAIN), self._callee.bounds)

    def _make_state(self) -> State:
        return State(self._task.version, self._fetcher(""), self._unbounded)

    def _make_log(self) -> TaskLogger:
        return self._runner.logger(self._callee.name, self._task.id)

    def _fetcher(self, path: str) -> Callable[[], bytes]:
        """What gives the state at or below a path, encoded.

        It must not hold the context, which would be garbage for long, with the task's arrays.
        """
        link, task = self._runner.link, self._task.id
        return lambda: link.fetch_bytes(task, STATE, path, "ctx.state")


_PARTS: dict[str, Callable[[WorkerContext], Any]] = {
    "input": WorkerContext._make_inputs,
    "domain": WorkerContext._make_domain,
    "state": WorkerContext._make_state,
    "log": WorkerContext._make_log,
    "worker": operator.attrgetter("_runner.info"),
    "_seed": operator.attrgetter("_runner.seed"),
    "_rng_key": operator.attrgetter("_task.rng_key"),
}
