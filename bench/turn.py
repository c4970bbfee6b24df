"""One entrant's turn, in a process of its own: ``turn.py SET ENTRANT FILE``.

Answers all questions of the set that the entrant can, and writes the times to the file.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
# Workers of every peer import the work from here.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")])
)

from contest import cpu_seconds
from figures import Task, sets
from peers import entry_named


def main() -> int:
    name, entrant, file = sys.argv[1:]
    answers: dict[str, dict[str, tuple[float, float]]] = {}
    for question, task in sets()[name].tasks(entry_named(entrant)):
        answers.setdefault(question, {})[task.entrant] = measured(task)
    Path(file).write_text(json.dumps(answers))
    return 0


def measured(task: Task) -> tuple[float, float]:
    """The median time of one piece of work, and what CPU seconds one takes."""
    if task.fixed is not None:
        return task.fixed, 0.0
    for _ in range(task.warm_up):
        task.once()
    cpu = cpu_seconds()
    times = []
    for _ in range(task.calls):
        began = time.perf_counter()
        task.once()
        times.append(time.perf_counter() - began)
    used = (cpu_seconds() - cpu) / (task.calls * task.pieces)
    return statistics.median(times) / task.pieces, used


if __name__ == "__main__":
    sys.exit(main())
