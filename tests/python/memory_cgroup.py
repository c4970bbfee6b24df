"""A real memory cgroup with a limit of its own, for programs that are to be short of memory."""

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
        source: how HeapFull names it.
        directory: where it is.

    Raises:
        OSError: it cannot be made here.
    """

    def __init__(self, version: str, name: str, directory: Path, limit: int) -> None:
        self.version = version
        self.name = name
        self.directory = directory
        self.limit = limit
        self.limit_file = "memory.limit_in_bytes" if version == "v1" else "memory.max"
        self.source = f"cgroup {version} {name} {self.limit_file}"
        directory.mkdir()
        try:
            (directory / self.limit_file).write_text(str(limit))
        except OSError:
            directory.rmdir()
            raise

    def inner(self, name: str, limit: int) -> MemoryCgroup:
        """One within it, which is removed with it."""
        if self.version == "v2":
            (self.directory / "cgroup.subtree_control").write_text("+memory")
        return MemoryCgroup(self.version, f"{self.name}/{name}", self.directory / name, limit)

    def entering(self) -> list[str]:
        """A prefix that puts a program into it."""
        return ["sh", "-euc", f'echo $$ > {self.directory}/cgroup.procs\nexec "$@"', "sh"]

    def kills(self) -> int:
        """How many of its processes the kernel killed for want of memory."""
        events = "memory.oom_control" if self.version == "v1" else "memory.events"
        lines = (self.directory / events).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def usage(self) -> int:
        """The bytes that count in it."""
        name = "memory.usage_in_bytes" if self.version == "v1" else "memory.current"
        return int((self.directory / name).read_text())

    def join(self, pid: int) -> None:
        """Move a process into it; what that has allocated stays on the account of its old group."""
        (self.directory / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.directory / "cgroup.procs").read_text().split()]


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[MemoryCgroup]:
    """Make a cgroup, and remove it once it is empty.

    Raises:
        NoCgroup: this process may not make one, or there is no memory controller.
    """
    refusals = []
    for version, name, parent in _parents():
        child = f"theus-test-{os.getpid()}-{next(_numbers)}"
        try:
            group = MemoryCgroup(version, f"{name.rstrip('/')}/{child}", parent / child, limit)
        except OSError as error:
            refusals.append(str(error))
            continue
        try:
            yield group
        finally:
            inner = [path for path in group.directory.iterdir() if path.is_dir()]
            for directory in [*inner, group.directory]:
                until(lambda gone=directory: _removed(gone), f"{directory} to be empty and removed")
        return
    raise NoCgroup(f"no memory cgroup can be made here: {'; '.join(refusals) or 'there is none'}")


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # the kernel has not noticed yet that its last process is gone
        return False
    return True


def _parents() -> Iterator[tuple[str, str, Path]]:
    """Groups that may have others within: (version, name, directory). This process's own first; a
    group of v2 that has processes cannot, but the topmost can."""
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
            if version == "v2":
                yield version, root, Path(point)
