"""One task: decode its input, call the function, send what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..context import WorkerInfo, clear_row, store_row
from ..payload import NO_ARGUMENTS, decode, decode_each
from . import failures, frames, status, wire
from .context import WorkerContext
from .functions import Callee, FunctionCache
from .heavy import TaskHeavy
from .link import Link
from .log import TaskLogger
from .process import exit_now, flush_output
from .received import QueuedTask
from .results import Outcomes, encode_failure, encode_result
from .status import StatusPage


class Runner:
    """Runs tasks, one after the other.

    Args:
        link: the worker's connection.
        page: where it is said what runs.
        info: which worker this is.
        seed: the engine's.
    """

    def __init__(self, link: Link, page: StatusPage, info: WorkerInfo, seed: int) -> None:
        self.link = link
        self.info = info
        self.seed = seed
        self._page = page
        self._functions = FunctionCache(link)
        self._loggers: dict[str, TaskLogger] = {}

    def run(self, task: QueuedTask) -> None:
        """Run a task and answer it, whatever it raises."""
        self._page.word.value = status.STARTED | task.id
        heavy = TaskHeavy(self.link, task.id, task.arrays)
        clock = _Clock()
        try:
            kind, answer = frames.RESULT, self._result(task, heavy, clock)
        except BaseException as error:
            kind, answer = frames.FAILED, encode_failure(error, heavy)
        finally:
            self.link.segments.end_writing()
            heavy.close()
        del heavy
        if self.link.abandoned:
            exit_now(0)  # a child that the task forked and that came back from its function
        # What was printed comes before the result: whoever awaits it may look at the output then.
        flush_output()
        self._page.word.value = status.REPLYING | task.id
        self.link.send(kind, task.id, wire.u64(clock.nanoseconds) + answer)
        # Idle only now: between the two a kill must not look like a task that never started.
        self._page.word.value = status.IDLE

    def _result(self, task: QueuedTask, heavy: TaskHeavy, clock: _Clock) -> bytes:
        callee = self._functions.find(task.id, task.function, task.target, heavy)
        call = self._decode_input(task, heavy)
        if callee.name in self._loggers:  # a task of it may have kept its logger
            self.logger(callee.name, task.id)
        self._page.word.value = status.RUNNING | task.id
        outcome = self._call(task, callee, call, heavy, clock)
        self._page.word.value = status.ENCODING | task.id
        return encode_result(outcome, callee.name, task.out_codec, heavy)

    def logger(self, name: str, task: int) -> TaskLogger:
        """The logger of a function, one of whose tasks runs."""
        logger = self._loggers.get(name)
        if logger is None:
            logger = self._loggers[name] = TaskLogger(name, self.link)
        logger.task = task
        return logger

    # ---- calling

    def _decode_input(self, task: QueuedTask, heavy: TaskHeavy) -> _Call | _Batch:
        codec, spans = task.input.codec, task.input.take(self.link, task.id)
        if codec != wire.CODEC_PICKLE:
            return _arguments_of_c(codec, spans)
        if spans == NO_ARGUMENTS.spans:
            return (), {}
        kind, first, items = decode(spans, heavy)
        if kind == "call":
            return first, items
        if kind == "each":  # they are loaded one by one: one that cannot be costs no other
            load = decode_each(spans, heavy)
            load()  # the head once more
            return _Batch(first, items, load)
        return _Batch(first, len(items), iter(items).__next__)

    def _call(
        self,
        task: QueuedTask,
        callee: Callee,
        call: _Call | _Batch,
        heavy: TaskHeavy,
        clock: _Clock,
    ) -> Any:
        if isinstance(call, _Batch):
            return self._call_batch(task, callee, call, heavy, clock)
        args, kwargs = call
        ctx = None
        if callee.passes_ctx:
            # Outside of maps, as a C program may call it, a task gets the whole of an output.
            ctx = WorkerContext(self, task, callee, args, kwargs, heavy, None, heavy.output_rows())
        with clock:
            return callee.call(args, kwargs, ctx)

    def _call_batch(
        self, task: QueuedTask, callee: Callee, batch: _Batch, heavy: TaskHeavy, clock: _Clock
    ) -> Outcomes:
        values: list[Any] = []
        try:
            rows = heavy.output_rows()
            if callee.passes_ctx or rows is not None:
                self._call_singly(task, callee, batch, heavy, clock, values, rows)
            else:
                with clock:
                    callee.call_each(batch.next, batch.length, values)
        except BaseException as error:
            return Outcomes(values, failures.describe(error, heavy.keys_read))
        return Outcomes(values, None)

    def _call_singly(
        self,
        task: QueuedTask,
        callee: Callee,
        batch: _Batch,
        heavy: TaskHeavy,
        clock: _Clock,
        values: list[Any],
        rows: Any,
    ) -> None:
        for item in range(batch.first_index, batch.first_index + batch.length):
            args = batch.next()
            row = None if rows is None else rows[item, ...]
            if row is not None and task.again:
                clear_row(row)
            ctx = None
            if callee.passes_ctx:
                ctx = WorkerContext(self, task, callee, args, {}, heavy, item, row)
            with clock:
                value = callee.call(args, {}, ctx)
                if row is not None:
                    store_row(row, value)
                    value = None
            values.append(value)


class _Clock:
    """Adds up how long user code ran."""

    __slots__ = ("_started", "nanoseconds")

    def __init__(self) -> None:
        self.nanoseconds = 0
        self._started = 0

    def __enter__(self) -> None:
        self._started = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        self.nanoseconds += time.perf_counter_ns() - self._started


_Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


class _Batch(NamedTuple):
    first_index: int
    length: int
    next: Callable[[], tuple[Any, ...]]


def _arguments_of_c(codec: int, spans: Sequence[memoryview]) -> _Call:
    """The arguments of a call in one of the codecs that programs in C use."""
    if codec == wire.CODEC_NONE:
        return (), {}
    if codec == wire.CODEC_RAW:
        return (b"".join(spans),), {}
    arguments = json.loads(b"".join(spans))
    if not isinstance(arguments, dict):
        raise TypeError("a JSON input is an object of keyword arguments")
    return (), arguments
