"""Files of JSON, a fact in each line, written by processes that may be killed at any moment."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


class JsonLines:
    """A file opened for appending: the kernel puts writes one behind the other."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def append(self, facts: dict[str, Any]) -> None:
        """Write one line."""
        # A line of its own, also behind the half of a line that a killed writer has left.
        os.write(self._fd, b"\n" + json.dumps(facts).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read(path: Path) -> list[dict[str, Any]]:
    """All facts, in the order in which they were written; half a line counts as none."""
    if not path.exists():
        return []
    facts = []
    for line in filter(None, path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError):  # half a line is no JSON
            facts.append(json.loads(line))
    return facts
