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

import os
from typing import Any

from json_lines import JsonLines, read

__all__ = ["VARIABLE", "Journal", "own", "read"]

VARIABLE = "CHAOS_JOURNAL"


class Journal(JsonLines):
    """Writes facts to a file."""

    def note(self, what: str, **facts: Any) -> None:
        self.append({"what": what, **facts})


_own: Journal | None = None


def own() -> Journal:
    """The journal of this process, which a worker inherits from its host by the environment."""
    global _own
    if _own is None:
        _own = Journal(os.environ[VARIABLE])
    return _own
