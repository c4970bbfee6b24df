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
    "In the waiting the worker takes the task off its socket, decodes, calls and answers, all in "
    "Python (and a few system calls), while the host polls; everything else is the host's, in "
    "Python but for handing over and taking, which are calls into the library.",
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
        task = prepared.submit(handle)
        submitted = now()
        wait_for_task(task)
        ended = now()
        call.take(task)
        taken = now()
        for name, seconds in (
            ("1. resolve and check the call", resolved - began),
            ("2. encode it", encoded - resolved),
            ("3. hand it over", submitted - encoded),
            ("4. wait", ended - submitted),
            ("5. take, decode and release the result", taken - ended),
            ("together", taken - began),
        ):
            times.setdefault(name, []).append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


SET = QuestionSet((STAGES,), tasks)
