"""What the live check does, step by step, in a process of its own; see `live`.

It prints one line of JSON for each step: the fields of a finding but for its subject.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from ..errors import TheusError
from .machine import size

_SIZE = 8 << 20
# The files that the library makes: anonymous, or unnamed where a sandbox forbids those.
_OURS = re.compile(r"/memfd:theus|/dev/shm/#\d+ \(deleted\)$")
_REGION = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+) +(.*)$")


class Failed(Exception):
    """A step went wrong: what was found, what it means, how to mend it."""


def main() -> None:
    """Run the steps; the first that fails is the last."""
    steps = _Steps()
    try:
        for name, step in steps.in_order():
            began = time.perf_counter()
            try:
                value = step()
            except Failed as failure:
                _tell(name, "missing", *failure.args)
                return
            except (TheusError, ImportError, OSError) as failure:
                _tell(name, "missing", f"{type(failure).__name__}", str(failure), _MEND)
                return
            took = f"{(time.perf_counter() - began) * 1e3:.1f} ms"
            _tell(name, "ok", f"{took}, {value}" if value else took)
    finally:
        steps.give_up()


_MEND = "mend what the message names, and what is not ok above"


def _tell(name: str, status: str, value: str, meaning: str = "", mend: str = "") -> None:
    line = {"name": name, "status": status, "value": value, "meaning": meaning, "mend": mend}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class _Steps:
    def __init__(self) -> None:
        self._engine: Any = None
        self._array: Any = None
        self._worker = 0
        self._before: set[str] = set()

    def in_order(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("load", self._load),
            ("open", self._open),
            ("alloc", self._alloc),
            ("publish", self._publish),
            ("execute", self._execute),
            ("zero copy", self._look_at_worker),
            ("close", self._close),
            ("nothing left", self._look_for_rest),
        ]

    def give_up(self) -> None:
        """Close the engine, whatever happened."""
        self._array = None
        if self._engine is not None:
            self._engine.close()

    def _load(self) -> str:
        from .._core import core

        version = core().version
        self._before = _descriptors()
        return f"library {version}"

    def _open(self) -> str:
        from ..engine import TheusEngine

        self._engine = TheusEngine(workers=1)
        self._worker = self._engine.run(os.getpid)
        limit = self._engine.stats()["memory"]["limit"]
        return f"one worker ready, {size(limit)} of shared memory at most"

    def _alloc(self) -> str:
        self._array = self._engine.heavy.alloc("doctor", _SIZE // 8)
        self._array[:] = 1.0
        return f"{_SIZE >> 20} MiB filled"

    def _publish(self) -> str:
        self._array.publish()
        return ""

    def _execute(self) -> str:
        total, address = self._engine.run(read_in_worker)
        if total != _SIZE / 8:
            raise Failed(
                f"the worker read a sum of {total}, not {_SIZE / 8}",
                "shared memory is not what it seems",
                "report this, with the output of `theus doctor --json`",
            )
        self._address = address
        return ""

    def _look_at_worker(self) -> str:
        """From outside: the worker maps the very pages of this process, and has none of its own."""
        theirs = _region(self._worker, self._address)
        ours = _region(os.getpid(), int(self._array.__array_interface__["data"][0]))
        if theirs is None or ours is None or not _OURS.search(theirs["name"]):
            where = "" if theirs is None else f" at {theirs['name'] or 'private memory'}"
            raise Failed(
                f"the worker's array is not in the shared file{where}",
                "the kernel does not show it as shared memory; /proc may be restricted",
                "mount /proc without hidepid",
            )
        # Not what smaps calls private: that is also what nobody else happens to map just now.
        if theirs["inode"] != ours["inode"] or theirs["Anonymous"]:
            raise Failed(
                f"the worker has {theirs['Anonymous']} kB of its own",
                "arrays are copied into workers rather than shared",
                "report this, with the output of `theus doctor --json`",
            )
        return f"the worker maps the same file, with {theirs['Anonymous']} kB of its own"

    def _close(self) -> str:
        engine, self._engine, self._array = self._engine, None, None
        engine.reap()  # what this process dropped is unmapped in the background
        engine.close()
        return ""

    def _look_for_rest(self) -> str:
        rest = []
        if os.path.exists(f"/proc/{self._worker}/exe"):
            rest.append(f"worker {self._worker}")
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            rest += [line.split()[0] for line in file if _OURS.search(line)]
        rest += sorted(_descriptors() - self._before)
        if rest:
            raise Failed(
                ", ".join(rest),
                "this was still there after the engine was closed",
                "report this, with the output of `theus doctor --json`",
            )
        return "no process, map or descriptor"


def read_in_worker(ctx: Any) -> tuple[float, int]:
    """The sum of the array, and where the worker has it."""
    array = ctx.heavy["doctor"]
    return float(array.sum()), int(array.__array_interface__["data"][0])


def _descriptors() -> set[str]:
    """What this process has open, but for what the language runtimes keep for themselves."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the one that lists the directory
            continue
        if not target.startswith("anon_inode:"):
            found.add(f"descriptor {fd} ({target})")
    return found


def _region(pid: int, address: int) -> dict[str, Any] | None:
    """The mapping that an address of a process lies in: name, inode, amounts in kB."""
    found: dict[str, Any] | None = None
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            head = _REGION.match(line)
            if head is not None:
                if found is not None:
                    return found
                if int(head[1], 16) <= address < int(head[2], 16):
                    found = {"inode": head[3], "name": head[4].strip()}
            elif found is not None:
                name, _, amount = line.partition(":")
                number = amount.split()[0] if amount.split() else ""
                found[name] = int(number) if number.isdigit() else amount.strip()
    return found
