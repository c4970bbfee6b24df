"""Processes and their memory, as the kernel tells of them in /proc."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from proc_files import listed, text

_REGION = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)$")
_AMOUNT = re.compile(r"^(\w+): +(\d+) kB$")
_ZOMBIE = ("Z", "X")
PAGE = os.sysconf("SC_PAGESIZE")


@dataclass
class Region:
    """One mapping of a process; the amounts of smaps are in bytes, the flags its VmFlags."""

    start: int
    end: int
    access: str
    inode: int
    name: str
    amounts: dict[str, int] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()

    @property
    def is_shared_memory(self) -> bool:
        """Whether it maps an anonymous memory file."""
        return self.name.startswith("/memfd:")

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end


def regions(pid: int | str = "self") -> list[Region]:
    """All mappings of a process, with the amounts of its smaps."""
    found: list[Region] = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = _REGION.match(line)
        if head:
            start, end, access, inode, name = head.groups()
            found.append(Region(int(start, 16), int(end, 16), access, int(inode), name))
            continue
        if line.startswith("VmFlags:"):
            found[-1].flags = frozenset(line.split()[1:])
        amount = _AMOUNT.match(line)
        if amount:
            found[-1].amounts[amount[1]] = int(amount[2]) << 10
    return found


def region_of(pid: int | str, address: int) -> Region:
    """The mapping that an address of a process lies in."""
    for region in regions(pid):
        if address in region:
            return region
    raise AssertionError(f"address {address:#x} of process {pid} is not mapped")


def proportional_size(pid: int) -> int:
    """Bytes of a process, each page divided by how many share it (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB$", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def state(pid: int) -> str:
    """The kernel's letter for what a process does; "" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    return state(pid) not in ("", *_ZOMBIE)


def children(pid: int) -> list[int]:
    """The children of a process. Zombies count."""
    found: list[int] = []
    for thread in listed(f"/proc/{pid}/task"):
        found += map(int, text(f"/proc/{pid}/task/{thread}/children").split())
    return found


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs, parents first. Zombies count."""
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def descriptors(pid: int | str = "self") -> set[str]:
    """What a process has open: number and name of each; nothing if it has ended.

    Raises:
        PermissionError: it is another user's. That must not look as if it had nothing open.
    """
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            # Without the one that reads the directory.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.add(f"{fd}: {os.readlink(f'/proc/{pid}/fd/{fd}')}")
    return found


def in_session(leader: int) -> list[int]:
    """Processes of the session that a process began, whoever their parent is now."""
    found = []
    for entry in listed("/proc"):
        if entry.isdigit() and alive(int(entry)) and _session(int(entry)) == leader:
            found.append(int(entry))
    return found


def doings(pids: Iterable[int]) -> str:
    """What processes are about, for the message of a test that waited in vain: one line a thread,
    with its state and the place in the kernel where it waits."""
    lines = []
    for pid in pids:
        command = text(f"/proc/{pid}/cmdline").replace("\0", " ")[:100]
        lines.append(f"{pid} {command}")
        for thread in listed(f"/proc/{pid}/task"):
            place = f"/proc/{pid}/task/{thread}"
            state = text(f"{place}/stat").rpartition(")")[2][:3].strip()
            lines.append(f"    {text(f'{place}/comm').strip()} {state} {text(f'{place}/wchan')}")
    return "\n".join(lines)


def _session(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[3])
