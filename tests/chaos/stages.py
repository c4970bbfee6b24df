"""What a host is doing, for others to see, also after it was killed."""

from __future__ import annotations

import enum
import mmap
from pathlib import Path


class Stage(enum.IntEnum):
    """What the main thread of a host does."""

    STARTING = 0  # of no interest here: not a line of theus has run
    OPENING = 1
    ALLOCATING = 2
    PUBLISHING = 3
    EXECUTING = 4
    CLOSING = 5


class StagePage:
    """A byte in a file that host and referee map."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @property
    def stage(self) -> Stage:
        return Stage(self._map[0])

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._map[0] = stage
