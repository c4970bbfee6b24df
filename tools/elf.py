"""Reads what the dynamic linker sees of a shared library.

The wheel's platform tag is a promise about glibc, and the exported symbols are a promise about the
ABI; both are read from the file that was built rather than assumed. binutils would do it too, but
a machine without a C compiler has no binutils.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

_SHT_DYNAMIC, _SHT_DYNSYM, _SHT_VERNEED = 6, 11, 0x6FFFFFFE
_DT_NEEDED = 1
_LOCAL_BINDING = 0
_MACHINES = {62: "x86_64", 183: "aarch64"}


@dataclass(frozen=True)
class Library:
    """The dynamic section of one ELF file."""

    machine: str
    needed: tuple[str, ...]
    """Libraries that have to be there, such as ``libc.so.6``."""
    exported: tuple[str, ...]
    """Names of the defined symbols that other files can see, sorted."""
    versions: tuple[str, ...]
    """Symbol versions asked of other libraries, such as ``GLIBC_2.17``, sorted."""

    @property
    def glibc(self) -> tuple[int, ...]:
        """The oldest glibc that can load the library, ``(2, 17)`` say."""
        found = [re.fullmatch(r"GLIBC_([0-9.]+)", version) for version in self.versions]
        return max((tuple(map(int, m[1].split("."))) for m in found if m), default=(0,))


@dataclass(frozen=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


def read(path: Path) -> Library:
    """Returns what ``path``, a little-endian 64-bit ELF file, needs and exports.

    Raises:
        ValueError: It is not such a file.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is not a little-endian 64-bit ELF file")
    machine = _MACHINES.get(struct.unpack_from("<H", data, 18)[0], "unknown")
    sections = _sections(data)
    needed: list[str] = []
    exported: set[str] = set()
    versions: set[str] = set()
    for section in sections:
        strings = sections[section.link].offset
        if section.kind == _SHT_DYNAMIC:
            needed = _needed(data, section, strings)
        elif section.kind == _SHT_DYNSYM:
            exported = _exported(data, section, strings)
        elif section.kind == _SHT_VERNEED:
            versions = _versions(data, section, strings)
    return Library(machine, tuple(needed), tuple(sorted(exported)), tuple(sorted(versions)))


def _sections(data: bytes) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = []
    for index in range(count):
        header = struct.unpack_from("<IIQQQQI", data, table + index * size)
        _, kind, _, _, offset, length, link = header
        sections.append(_Section(kind, offset, length, link))
    return sections


def _needed(data: bytes, section: _Section, strings: int) -> list[str]:
    entries = struct.iter_unpack("<QQ", data[section.offset : section.offset + section.size])
    return [_string(data, strings + value) for tag, value in entries if tag == _DT_NEEDED]


def _exported(data: bytes, section: _Section, strings: int) -> set[str]:
    names = set()
    symbols = data[section.offset : section.offset + section.size]
    for name, info, _, defined_in, _, _ in struct.iter_unpack("<IBBHQQ", symbols):
        if defined_in != 0 and info >> 4 != _LOCAL_BINDING:
            names.add(_string(data, strings + name))
    return names


def _versions(data: bytes, section: _Section, strings: int) -> set[str]:
    """Walks the two nested linked lists: per library, the versions asked of it."""
    found = set()
    library = section.offset
    while True:
        _, count, _, first, following = struct.unpack_from("<HHIII", data, library)
        version = library + first
        for _ in range(count):
            _, _, _, name, step = struct.unpack_from("<IHHII", data, version)
            found.add(_string(data, strings + name))
            version += step
        if not following:
            return found
        library += following


def _string(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()
