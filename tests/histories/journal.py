"""What clients write down of their calls, while they may be killed at any moment.

A line of JSON each, by a single write to a file opened for appending; half a line, which a killed
writer can leave, counts as none. Times are of CLOCK_MONOTONIC, which all processes share.

    start, version                      the state before the first call: values by key
    call, client, operation, at         a client is about to call
    return, answer, at                  it was told this; no such line: it may have happened or not
    return, never                       the call did not happen: its worker died with it
    killed                              a worker was killed, or a zygote
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from json_lines import JsonLines, read

__all__ = ["KEYS", "VARIABLE", "Journal", "lines", "own", "read", "values_of"]

VARIABLE = "HISTORY_JOURNAL"
KEYS = ("a", "b", "c", "n")


class Journal(JsonLines):
    """Writes lines to a file, which all processes of a host share."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._numbers = itertools.count()

    def note(self, **facts: Any) -> None:
        self.append(facts)

    def name(self) -> str:
        """A name for a call."""
        return f"{os.getpid()}.{next(self._numbers)}"

    def call(self, name: str, client: int, kind: str, **operation: Any) -> None:
        """Note a call that is about to be made."""
        facts = {"kind": kind, **operation}
        self.note(call=name, client=client, operation=facts, at=time.monotonic_ns())

    def answer(self, name: str, **answer: Any) -> None:
        """Note what a call was told."""
        at = time.monotonic_ns()  # not before the call has returned
        self.note(**{"return": name, "answer": answer, "at": at})

    def never(self, name: str) -> None:
        """Note that a call did not happen."""
        self.note(**{"return": name, "never": True, "at": time.monotonic_ns()})


def values_of(domain: Any) -> dict[str, str]:
    """All values of a state."""
    return {key: str(domain[key]) for key in KEYS}


def lines(facts: Sequence[dict[str, Any]]) -> bytes:
    """Those of a history, for the checker."""
    return b"".join(json.dumps(fact).encode() + b"\n" for fact in facts if "killed" not in fact)


_own: Journal | None = None


def own() -> Journal:
    """The journal of this process; a worker inherits its path from its host."""
    global _own
    if _own is None:
        _own = Journal(os.environ[VARIABLE])
    return _own
