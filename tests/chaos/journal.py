"""What the processes of a host write down while they may die at any moment.

One line of JSON per fact, each by a single write to a file opened for appending: the kernel puts
such writes one behind the other, whichever process they come from. But it copies page by page, so
where a line crosses the end of a page a reader may see half of it, and a killed writer may leave
half of it. Half a line counts as none: the writer had not gone on from it.

    open                            the host is about to open an engine; what follows is about that
    order   task, kind, retries     a client is about to submit a task
    begin   task, pid               a worker has entered the task's function
    cancel  task                    its client is about to cancel it
    close                           the host is about to close the engine under its clients
    end     task, how, ...          the client knows how the task ended
    added                           a compare-and-swap that adds one to the counter returned
    look                            the host is about to read the counter
    counter value, adders           what it was, while so many clients were adding to it
    holder  parent, pid, ppid       user code forked this child, which keeps shared arrays mapped
    wrong   text                    something read differently from what was written
    left    text                    something was left after the engine was closed
"""

from __future__ import annotations

import contextlib
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
        # A line of its own, also behind the half of a line that a killed writer has left.
        os.write(self._fd, b"\n" + json.dumps({"what": what, **facts}).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read(path: Path) -> list[dict[str, Any]]:
    """All facts, in the order in which they were written."""
    if not path.exists():
        return []
    facts = []
    for line in filter(None, path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError):  # half a line is no JSON
            facts.append(json.loads(line))
    return facts


_own: Journal | None = None


def own() -> Journal:
    """The journal of this process, which a worker inherits from its host by the environment."""
    global _own
    if _own is None:
        _own = Journal(os.environ[VARIABLE])
    return _own
