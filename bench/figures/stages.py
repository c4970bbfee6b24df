"""Where the time of one call of theus goes, step by step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from peers import Entry

from . import Question, QuestionSet, Task

if TYPE_CHECKING:
    from theus import TheusEngine

CALLS = 5000

STAGES = Question(
    "the steps of one call that does nothing, waited for",
    "µs",
    (),
    "The third is one call of the library. Meanwhile the worker takes the task out of its ring, "
    "decodes, calls and answers, in Python, which is most of it; the host looks at its own ring. "
    "Everything else is the host's, in Python.",
)


def tasks(entry: Entry) -> Iterator[tuple[str, Task]]:
    if entry.name != "theus":
        return
    from theus_work import nothing_with_ctx

    from theus import TheusEngine

    with TheusEngine(workers=2) as engine:
        for _ in range(500):
            engine.run(nothing_with_ctx)
        for name, seconds in measured(engine).items():
            yield STAGES.name, Task(name, lambda: None, fixed=seconds)


def measured(engine: TheusEngine) -> dict[str, float]:
    """The median of each step, made as `Dispatcher.run` makes them."""
    from theus_work import nothing_with_ctx

    from theus.calls import Limits
    from theus.dispatch import wait_for_task

    dispatcher = engine._dispatcher
    limits, handle, now = Limits(), dispatcher.session.engine, time.perf_counter
    times: dict[str, list[float]] = {}
    for _ in range(CALLS):
        began = now()
        call = dispatcher.call(nothing_with_ctx, (), {}, limits)
        resolved = now()
        prepared = call.prepare()
        encoded = now()
        small = prepared.run(handle)
        if small is None:
            wait_for_task(prepared.task)
        ended = now()
        call.take(prepared.task, small)
        taken = now()
        for name, seconds in (
            ("1. resolve and check the call", resolved - began),
            ("2. encode it", encoded - resolved),
            ("3. hand it over, wait, take the result", ended - encoded),
            ("4. decode the result", taken - ended),
            ("together", taken - began),
        ):
            times.setdefault(name, []).append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


SET = QuestionSet((STAGES,), tasks)
