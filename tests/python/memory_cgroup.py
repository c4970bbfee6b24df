"""A real memory cgroup with a small limit, for processes that are to run out of memory."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from polling import until

_numbers = itertools.count(1)


class NoCgroup(Exception):
    """None can be made here; the text says why."""


class MemoryCgroup:
    """One cgroup of this process's own making.

    Attributes:
        version: "v1" or "v2".
        name: as /proc/<pid>/cgroup gives it.
        limit: in bytes.
        limit_file: the name of the limit, as an error names it.
        directory: where it is.
    """

    def __init__(self, version: str, name: str, directory: Path, limit: int) -> None:
        self.version = version
        self.name = name
        self.directory = directory
        self.limit = limit
        self.limit_file = "memory.limit_in_bytes" if version == "v1" else "memory.max"

    def join(self, pid: int) -> None:
        """Move a process into it; what that has allocated stays on the account of its old group."""
        (self.directory / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.directory / "cgroup.procs").read_text().split()]


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[MemoryCgroup]:
    """Make a cgroup below this process's own, and remove it once it is empty.

    Raises:
        NoCgroup: this process may not make one, or there is no memory controller.
    """
    refusals = []
    for version, name, parent in _own_groups():
        child = f"theus-test-{os.getpid()}-{next(_numbers)}"
        group = MemoryCgroup(version, f"{name.rstrip('/')}/{child}", parent / child, limit)
        try:
            group.directory.mkdir()
        except OSError as error:
            refusals.append(str(error))
            continue
        try:
            try:
                (group.directory / group.limit_file).write_text(str(limit))
            except OSError as error:
                refusals.append(str(error))
                continue
            yield group
            return
        finally:
            until(lambda: _removed(group.directory), f"{group.directory} to be empty and removed")  # noqa: B023
    raise NoCgroup(f"no memory cgroup can be made here: {'; '.join(refusals) or 'there is none'}")


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # the kernel has not noticed yet that its last process is gone
        return False
    return True


def _own_groups() -> Iterator[tuple[str, str, Path]]:
    """The groups that this process is in: (version, name, directory)."""
    mounts = Path("/proc/self/mountinfo").read_text()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):
            version, pattern = "v1", r" (\S+) (/\S+) .* - cgroup \S+ \S*\bmemory\b"
        elif number == "0" and not controllers:
            version, pattern = "v2", r" (\S+) (/\S+) .* - cgroup2 "
        else:
            continue
        for root, point in re.findall(pattern, mounts):
            below = name.removeprefix(root.rstrip("/"))
            if (Path(point) / below.lstrip("/") / "cgroup.procs").exists():
                yield version, name, Path(point) / below.lstrip("/")
