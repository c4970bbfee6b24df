"""Reading what the kernel says of this process, its control groups and the machine."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Group(NamedTuple):
    """A control group around this process, as far as the mounted file systems show it.

    Attributes:
        version: "v1" or "v2".
        name: as ``/proc/self/cgroup`` would give it.
        directory: where its files are.
        own: whether this process is in it directly.
    """

    version: str
    name: str
    directory: str
    own: bool

    def text(self, file: str) -> str | None:
        """What one of its files says; None if there is no such file."""
        return _read(posixpath.join(self.directory, file))

    def number(self, file: str) -> int | None:
        """A file of one number; None if there is none, or if it says "max"."""
        text = self.text(file)
        return int(text) if text is not None and text.strip().isdigit() else None

    def field(self, file: str, name: str) -> int:
        """The number that follows a name in a file of such lines; 0 if there is none."""
        return field_of(self.text(file) or "", name) or 0


class Machine:
    """The files of a machine.

    Args:
        root: where its file system begins.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """What a file says; None if it cannot be read."""
        return _read(self._at(path))

    def number(self, path: str) -> int | None:
        """A file of one number."""
        text = (self.text(path) or "").strip()
        return int(text) if text.isdigit() else None

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(self._at(path))

    def groups(self, controller: str) -> list[Group]:
        """The control groups around this process that may limit `controller`, innermost first."""
        found: list[Group] = []
        for line in (self.text("/proc/self/cgroup") or "").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, name = rest.partition(":")
            if controller in controllers.split(","):
                found += self._ancestors("v1", name, controller)
            elif number == "0" and not controllers:
                found += self._ancestors("v2", name, controller)
        return found

    def _ancestors(self, version: str, name: str, controller: str) -> Iterator[Group]:
        mount = self._mount(version, name, controller)
        if mount is None:
            return
        point, below = mount
        name, own = _clean(name), True
        while True:
            directory = self._at(posixpath.join(point, below.lstrip("/")))
            yield Group(version, name, directory, own)
            if below == "/":
                return
            below, name, own = posixpath.dirname(below), posixpath.dirname(name), False

    def _mount(self, version: str, name: str, controller: str) -> tuple[str, str] | None:
        """Where a hierarchy is mounted, and where in that mount the group is.

        In a container the mount may show a subtree only, or the group may lie outside of it; its
        root is then the nearest that can be seen.
        """
        outside: tuple[str, str] | None = None
        for line in (self.text("/proc/self/mountinfo") or "").splitlines():
            before, _, after = line.partition(" - ")
            place, kind = before.split(), after.split()
            if len(place) < 5 or len(kind) < 3:
                continue
            if version == "v2" and kind[0] != "cgroup2":
                continue
            if version == "v1" and (kind[0] != "cgroup" or controller not in kind[2].split(",")):
                continue
            point, root = _unescaped(place[4]), _unescaped(place[3]).rstrip("/")
            path = _clean(name)
            if path == root or path.startswith(root + "/"):
                return point, _clean(path[len(root) :])
            outside = outside or (point, "/")
        return outside

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path.lstrip("/"))


def field_of(text: str, name: str) -> int | None:
    """The number that follows a name at the start of a line."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} bytes"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _clean(path: str) -> str:
    """An absolute path without "..", and with single slashes (normpath keeps two at the start)."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _unescaped(text: str) -> str:
    r"""Undo mountinfo's ``\040`` for a space, and the like."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
