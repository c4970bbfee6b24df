"""One task: decode its input, call the function, send what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import resolving
from ..context import Domain, Inputs, TaskContext, WorkerInfo, clear_row, store_row
from ..payload import decode, decode_each
from ..state import State, decode_state
from . import failures, frames, status, wire
from .functions import Callee, FunctionCache
from .heavy import TaskHeavy
from .link import STATE, Link
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
        self._link = link
        self._page = page
        self._info = info
        self._seed = seed
        self._functions = FunctionCache(link)
        self._loggers: dict[str, TaskLogger] = {}

    def run(self, task: QueuedTask) -> None:
        """Run a task and answer it, whatever it raises."""
        self._page.set(status.STARTED, task.id)
        heavy = TaskHeavy(self._link, task.id, task.arrays)
        clock = _Clock()
        try:
            kind, answer = frames.RESULT, self._result(task, heavy, clock)
        except BaseException as error:
            kind, answer = frames.FAILED, encode_failure(error, heavy)
        finally:
            self._link.segments.end_writing()
            heavy.close()
        del heavy
        if self._link.abandoned:
            exit_now(0)  # a child that the task forked and that came back from its function
        # What was printed comes before the result: whoever awaits it may look at the output then.
        flush_output()
        self._page.set(status.REPLYING, task.id)
        self._link.send(kind, task.id, wire.u64(clock.nanoseconds) + answer)
        # Idle only now: between the two a kill must not look like a task that never started.
        self._page.set(status.IDLE, 0)

    def _result(self, task: QueuedTask, heavy: TaskHeavy, clock: _Clock) -> bytes:
        with resolving(heavy):  # a function may capture shared arrays, as arguments may be some
            callee = self._functions.find(task.id, task.function, task.target)
            call = self._decode_input(task, heavy)
        self._page.set(status.RUNNING, task.id)
        outcome = self._call(task, callee, call, heavy, clock)
        self._page.set(status.ENCODING, task.id)
        return encode_result(outcome, callee.name, task.out_codec, heavy)

    # ---- calling

    def _decode_input(self, task: QueuedTask, heavy: TaskHeavy) -> _Call | _Batch:
        codec, spans = task.input.codec, task.input.take(self._link, task.id)
        if codec == wire.CODEC_NONE:
            return _Call((), {})
        if codec == wire.CODEC_RAW:
            return _Call((b"".join(spans),), {})
        if codec == wire.CODEC_JSON:
            arguments = json.loads(b"".join(spans))
            if not isinstance(arguments, dict):
                raise TypeError("a JSON input is an object of keyword arguments")
            return _Call((), arguments)
        kind, first, items = decode(spans)
        if kind == "call":
            return _Call(first, items)
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
        # Outside of maps, as a C program may call it, a task gets the whole of an output.
        out = heavy.output_rows() if callee.passes_ctx else None
        ctx = self._context(task, callee, call.args, call.kwargs, heavy, None, out)
        with clock:
            return callee.call(call.args, call.kwargs, ctx)

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
            ctx = self._context(task, callee, args, {}, heavy, item, row)
            with clock:
                value = callee.call(args, {}, ctx)
                if row is not None:
                    store_row(row, value)
                    value = None
            values.append(value)

    def _context(
        self,
        task: QueuedTask,
        callee: Callee,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        heavy: TaskHeavy,
        item: int | None,
        row: Any = None,
    ) -> TaskContext | None:
        if not callee.passes_ctx:
            return None
        inputs = Inputs(callee.inputs(args, kwargs))
        bounds = callee.bounds
        return TaskContext(
            input=inputs,
            domain=Domain(inputs, lambda: self._stored(task, "domain").get("domain"), bounds),
            heavy=heavy if bounds is None else bounds.heavy(heavy),
            state=State(task.version, lambda: self._fetch_state(task, ""), heavy),
            log=self._logger(callee.name, task.id),
            worker=self._info,
            seed=self._seed,
            rng_key=task.rng_key,
            item=item,
            out=row,
        )

    def _logger(self, name: str, task: int) -> TaskLogger:
        logger = self._loggers.get(name)
        if logger is None:
            logger = self._loggers[name] = TaskLogger(name, self._link)
        logger.task = task
        return logger

    def _stored(self, task: QueuedTask, path: str) -> dict[str, Any]:
        return decode_state(self._fetch_state(task, path))

    def _fetch_state(self, task: QueuedTask, path: str) -> bytes:
        """The state at or below a path, encoded."""
        return self._link.fetch_bytes(task.id, STATE, path, "ctx.state")


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


class _Call(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Batch(NamedTuple):
    first_index: int
    length: int
    next: Callable[[], tuple[Any, ...]]
