"""Control groups of memory that tests make for a program, with limits of their own."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from polling import until

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


def obstacle() -> str:
    """Why no group can be made here; empty when one can."""
    if (_V1 / "memory.limit_in_bytes").exists():
        return "" if os.access(_V1, os.W_OK) else f"{_V1} is not writable"
    if not (_V2 / "cgroup.controllers").exists():
        return "no control groups are mounted"
    if "memory" not in (_V2 / "cgroup.subtree_control").read_text().split():
        return f"the memory controller is not delegated below {_V2}"
    return "" if os.access(_V2, os.W_OK) else f"{_V2} is not writable"


class Group:
    """A group with a limit, in v1 or v2, whichever this machine has."""

    def __init__(self, parent: Path, name: str, limit: int) -> None:
        self.path = parent / name
        self.path.mkdir()
        self._v1 = (self.path / "memory.limit_in_bytes").exists()
        limit_file = "memory.limit_in_bytes" if self._v1 else "memory.max"
        (self.path / limit_file).write_text(str(limit))
        self.limit_file = limit_file

    @property
    def source(self) -> str:
        """What an error calls it."""
        version, root = ("v1", _V1) if self._v1 else ("v2", _V2)
        return f"cgroup {version} /{self.path.relative_to(root)} {self.limit_file}"

    def entering(self) -> list[str]:
        """A prefix that puts a program into the group."""
        return ["sh", "-euc", f'echo $$ > {self.path}/cgroup.procs\nexec "$@"', "sh"]

    def kills(self) -> int:
        """How many processes the kernel killed for want of memory."""
        events = self.path / ("memory.oom_control" if self._v1 else "memory.events")
        counts = dict(line.split() for line in events.read_text().splitlines())
        return int(counts["oom_kill"])

    def inner(self, name: str, limit: int) -> Group:
        """A group within it."""
        if not self._v1:
            (self.path / "cgroup.subtree_control").write_text("+memory")
        return Group(self.path, name, limit)


@contextlib.contextmanager
def group(limit: int) -> Iterator[Group]:
    """A group with a limit, removed with those inside it when the block is left."""
    root = _V1 if (_V1 / "memory.limit_in_bytes").exists() else _V2
    made = Group(root, f"theus-test-{uuid.uuid4().hex[:12]}", limit)
    try:
        yield made
    finally:
        for path in [*sorted(made.path.glob("*/")), made.path]:
            # What has just ended may be in it for a moment.
            until(lambda path=path: _removed(path), f"{path} to be empty")


def _removed(path: Path) -> bool:
    if path.is_dir():
        with contextlib.suppress(OSError):
            path.rmdir()
    return not path.is_dir()
