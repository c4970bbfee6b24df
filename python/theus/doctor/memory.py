"""How much shared memory an engine can have, and what else is needed of memory and files."""

from __future__ import annotations

import os
from typing import NamedTuple

from .findings import Finding
from .machine import Group, Machine, field_of, size

# As the library does it (shm/budget.go): what is left over is for everything else.
_SHARE = 80
_LITTLE = 256 << 20
_TOO_LITTLE = 16 << 20
_NO_LIMIT = 1 << 62  # what v1 says for "none" is just below 2**63


class Room(NamedTuple):
    """What can still be allocated, and what says so."""

    left: int
    source: str
    value: str
    mend: str


def findings(machine: Machine) -> list[Finding]:
    """The heap, everything that bounds it, and what is no limit although people fear it."""
    rooms = [*_of_machine(machine), *_of_groups(machine)]
    return [
        _heap(rooms),
        *(_room(room) for room in rooms),
        *_oom_groups(machine),
        _overcommit(machine),
        _dev_shm(machine),
        Finding("memory", "files", "ok", _places(), "theus writes no file, wherever that is"),
    ]


def _heap(rooms: list[Room]) -> Finding:
    if not rooms:
        text = "nothing says how much memory is left, so none can be given out"
        return Finding("memory", "heap", "missing", "unknown", text, "mount /proc")
    tightest = min(rooms, key=lambda room: room.left)
    heap = tightest.left // 100 * _SHARE
    value = f"{size(heap)} ({_SHARE} % of what is left by {tightest.source})"
    text = "what all engines of a program may hold together, unless they are told heap="
    if tightest.left < _TOO_LITTLE:
        return Finding("memory", "heap", "missing", value, text, tightest.mend)
    if tightest.left < _LITTLE:
        return Finding("memory", "heap", "degraded", value, text, tightest.mend)
    return Finding("memory", "heap", "ok", value, text)


def _room(room: Room) -> Finding:
    return Finding("memory", room.source, "ok", room.value)


def _of_machine(machine: Machine) -> list[Room]:
    available = field_of(machine.text("/proc/meminfo") or "", "MemAvailable:")
    if available is None:
        return []
    value = f"{size(available << 10)} available"
    return [Room(available << 10, "the machine", value, "end other programs, or add memory")]


def _of_groups(machine: Machine) -> list[Room]:
    found = (_of_group(group) for group in machine.groups("memory"))
    return [room for room in found if room is not None]


def _of_group(group: Group) -> Room | None:
    """What a group leaves: page cache counts as used, but the kernel drops it before it kills."""
    if group.version == "v1":
        limit_file, usage_file, prefix = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        if not group.own and (group.text("memory.use_hierarchy") or "1").strip() == "0":
            return None  # it does not count its children
        limit = group.number(limit_file)
        outer = group.field("memory.stat", "hierarchical_memory_limit") if group.own else 0
        if outer and (limit is None or outer < limit):
            limit, limit_file = outer, "hierarchical_memory_limit"
    else:
        limit_file, usage_file, prefix = "memory.max", "memory.current", ""
        limit = group.number(limit_file)
    usage = group.number(usage_file)
    if limit is None or usage is None or limit >= _NO_LIMIT:
        return None
    cache = sum(
        group.field("memory.stat", prefix + name) for name in ("active_file", "inactive_file")
    )
    used = max(0, usage - cache)
    left = max(0, limit - used)
    value = f"limit {size(limit)}, used {size(used)} besides page cache, {size(left)} left"
    more = f"raise {limit_file} in {group.directory} (docker --memory, limits.memory of a pod)"
    return Room(left, f"control group {group.version} {group.name}", value, more)


def _oom_groups(machine: Machine) -> list[Finding]:
    for group in machine.groups("memory"):
        if group.version == "v2" and group.number("memory.oom.group") == 1:
            text = (
                "when this group runs out of memory the kernel ends all of it, this program too, "
                "and not just the worker that asked for too much"
            )
            more = f"echo 0 > {group.directory}/memory.oom.group (Kubernetes: singleProcessOOMKill)"
            value = f"memory.oom.group is 1 in {group.name}"
            return [Finding("memory", "kill of a whole group", "degraded", value, text, more)]
    return []


def _overcommit(machine: Machine) -> Finding:
    mode = machine.number("/proc/sys/vm/overcommit_memory")
    value = f"vm.overcommit_memory {'unknown' if mode is None else mode}"
    if mode == 2:
        text = (
            "the kernel refuses memory that is promised and not used: ctx.heavy.cow and large "
            "arguments count in full, and may fail although memory is free"
        )
        more = "sysctl -w vm.overcommit_memory=0"
        return Finding("memory", "overcommit", "degraded", value, text, more)
    return Finding("memory", "overcommit", "ok", value)


def _dev_shm(machine: Machine) -> Finding:
    text = (
        "its size (64 MB in most containers) does not matter: theus uses it only where "
        "memfd_create is refused"
    )
    value = "there" if machine.is_directory("/dev/shm") else "absent"
    return Finding("memory", "/dev/shm", "ok", value, text)


def _places() -> str:
    home = os.environ.get("HOME", "")
    places = [
        "no home directory" if not home else "home directory",
        "working directory removed" if _working_directory_is_gone() else "working directory",
    ]
    return ", ".join(places)


def _working_directory_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
