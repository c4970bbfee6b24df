"""How many bytes of shared pages the machine holds that other programs do not account for.

`Shmem` in /proc/meminfo is the machine's: another program that works with shared memory at the
same time would look like a leak of ours. So what other programs hold in memory files is taken off.
A page that nobody holds, or that an orphan of ours does, stays in the sum.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import this_run
from proc_files import listed, target, text

# Other programs allocate and free between the look at the machine and the look at them: a single
# reading may be wrong by as much, either way. So many are taken while they do.
_READINGS = 10


def unaccounted_bytes() -> int:
    """Shared pages of the machine, less the memory files of other programs, in bytes.

    One reading: too low while another program fills memory, too high while one frees it.
    """
    machine = _machine()
    return machine - _foreign()


def most_unaccounted_bytes() -> int:
    """No less than there are: what a later reading can be compared with.

    The machine is read between two looks at the other programs, and the lower of them is taken off.
    With a look after it alone, every reading is too low while one program fills a gigabyte, which
    takes longer than all of them. Readings end when nothing has changed from one to the next.
    """
    foreign, machine = [_foreign()], [_machine()]
    while len(machine) <= _READINGS:
        foreign.append(_foreign())
        machine.append(_machine())
        if foreign[-1] == foreign[-2] and machine[-1] == machine[-2]:
            break
    looks = zip(machine, pairwise(foreign), strict=False)  # nobody looked after the last of machine
    return max(pages - min(around) for pages, around in looks)


def _machine() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) << 10
    raise AssertionError("/proc/meminfo has no line Shmem")


def _foreign() -> int:
    files: dict[tuple[int, int], int] = {}  # by device and inode: each counts once
    ours, theirs = set(), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        held = _memory_files(pid)
        if held and (int(pid) == os.getpid() or this_run.started_this(pid)):
            ours |= held.keys()
        elif held:
            theirs.append(held)
    for held in theirs:
        files.update(held)
    return sum(size for inode, size in files.items() if inode not in ours)


def _memory_files(pid: str) -> dict[tuple[int, int], int]:
    """The memory files that a process has open or mapped: how many bytes of pages each has."""
    found = {}
    for path in _open_memory_files(pid) + _mapped_memory_files(pid):
        try:
            status = os.stat(path)
        except OSError:  # closed or unmapped meanwhile
            continue
        found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found


def _open_memory_files(pid: str) -> list[str]:
    paths = [f"/proc/{pid}/fd/{fd}" for fd in listed(f"/proc/{pid}/fd")]
    return [path for path in paths if target(path).startswith("/memfd:")]


def _mapped_memory_files(pid: str) -> list[str]:
    """By the list of all maps: a process has hundreds, and each would be a link to be read."""
    return [
        f"/proc/{pid}/map_files/{line.split()[0]}"
        for line in text(f"/proc/{pid}/maps").splitlines()
        if "/memfd:" in line
    ]
