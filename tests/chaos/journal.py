"""What the processes of a host write down while they may die at any moment.

One line of JSON per fact, each by a single write to a file opened for appending: the kernel puts
such writes one behind the other, whichever process they come from, and a killed writer leaves
either the whole line or none.

    order   task, kind, retries     a client is about to submit a task
    begin   task, pid               a worker has entered the task's function
    end     task, how, ...          the client knows how the task ended
    added                           a compare-and-swap that adds one to the counter returned
    counter value                   what the counter was when all clients had stopped
    holder  parent, pid, ppid       user code forked this child, which keeps shared arrays mapped
    wrong   text                    something read differently from what was written
    left    text                    something was left after the engine was closed
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "CHAOS_JOURNAL"


class Journal:
    """Writes facts to the file that the environment names."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, what: str, **facts: Any) -> None:
        os.write(self._fd, json.dumps({"what": what, **facts}).encode() + b"\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All facts, in the order in which they were written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


_own: Journal | None = None


def own() -> Journal:
    """The journal of this process, which a worker inherits from its host by the environment."""
    global _own
    if _own is None:
        _own = Journal(os.environ[VARIABLE])
    return _own
