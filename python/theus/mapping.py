"""Maps of shared segments, made by the C library's mmap.

Python's own ``mmap`` keeps a duplicate of the descriptor for as long as the map lives (before 3.13,
or without ``trackfd=False``). A process that maps thousands of segments would run out of
descriptors, and the kernel could not prove that a writer is gone while its descriptor is open. So
maps are made here, and the descriptor is closed by whoever owns it right after.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from typing import NoReturn

__all__ = ["PAGE_SIZE", "Mapping", "map_private", "map_shared"]

PAGE_SIZE = mmap.PAGESIZE

_PROT_READ = 1
_PROT_WRITE = 2
_MAP_SHARED = 0x01
_MAP_PRIVATE = 0x02
_MAP_FIXED = 0x10
_MAP_ANONYMOUS = 0x20
_MAP_POPULATE = 0x8000
_MADV_DONTDUMP = 16
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Mapping:
    """One map of a whole segment. It is unmapped when nothing refers to this object any more.

    Attributes:
        address: where the map begins.
        size: its length in bytes.
        segment: number of the segment, 0 when it has none.
        writable: whether the pages may be written through it.
    """

    __slots__ = (
        "__weakref__",
        "_on_unmap",
        "_unmapped",
        "address",
        "segment",
        "size",
        "writable",
    )

    def __init__(
        self,
        address: int,
        size: int,
        *,
        segment: int,
        writable: bool,
        on_unmap: Callable[[int], object] | None,
    ) -> None:
        self._unmapped = True  # until all is known: a signal handler may raise in between
        self._on_unmap = on_unmap
        self.address = address
        self.size = size
        self.segment = segment
        self.writable = writable
        self._unmapped = False

    # munmap is a default because at the end of a program there are no globals any more.
    def close(self, munmap: Callable[[int, int], object] = _libc.munmap) -> None:
        """Unmap now, once. Only for maps that no array lies over."""
        if not self._unmapped:
            self._unmapped = True
            munmap(self.address, self.size)
            if self._on_unmap is not None:
                self._on_unmap(self.segment)

    # Not weakref.finalize, which takes 15 µs where it is not in the processor's caches, as it is
    # not when a task is the first to read an array.
    __del__ = close

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a map cannot be copied: both would unmap it")

    def make_private(self, fd: int) -> None:
        """Swap the pages for a private map of the same segment, at the same address.

        Pointers into the map stay valid, but what is written through them from now on reaches
        nobody else.

        Args:
            fd: a read-only description of the segment. It must be opened for reading only, or the
                map would count as a writer when the kernel is asked whether there is one.

        Raises:
            OSError: the kernel refused; the map is then as it was.
        """
        flags = _MAP_PRIVATE | _MAP_FIXED
        _map(self.address, self.size, _PROT_READ | _PROT_WRITE, flags, fd)

    def forget(self) -> None:
        """Swap the pages for empty memory of this process, at the same address."""
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_FIXED
        _map(self.address, self.size, _PROT_READ | _PROT_WRITE, flags, -1)


def map_shared(
    fd: int,
    size: int,
    *,
    writable: bool = False,
    populate: bool = False,
    segment: int = 0,
    on_unmap: Callable[[int], object] | None = None,
) -> Mapping:
    """Map a segment so that all who map it see the same bytes.

    Args:
        fd: a descriptor of the segment; still the caller's to close.
        size: bytes to map, more than 0.
        writable: also for writing; the descriptor must then be open for writing.
        populate: enter all of its pages now, in one go: for who is about to write them all.
        segment: its number, handed to `on_unmap`.
        on_unmap: called with `segment` once it is unmapped, possibly by the garbage collector in
            the middle of anything, so it must not wait for a lock.

    Raises:
        OSError: the kernel refused.
    """
    protection = _PROT_READ | (_PROT_WRITE if writable else 0)
    address = _map(None, size, protection, _MAP_SHARED | (_MAP_POPULATE if populate else 0), fd)
    return Mapping(address, size, segment=segment, writable=writable, on_unmap=on_unmap)


def map_private(
    fd: int,
    size: int,
    *,
    segment: int = 0,
    on_unmap: Callable[[int], object] | None = None,
) -> Mapping:
    """Map a segment for reading and writing; what is written stays in this process.

    Pages are shared until they are written to. A read-only descriptor is enough. The arguments
    are those of `map_shared`.
    """
    address = _map(None, size, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE, fd)
    return Mapping(address, size, segment=segment, writable=True, on_unmap=on_unmap)


def _map(address: int | None, size: int, protection: int, flags: int, fd: int) -> int:
    result = _libc.mmap(address, size, protection, flags, fd, 0)
    if result is None or result == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (mapping {size} bytes of shared memory)")
    # A crash of a process with 1 GiB mapped takes seconds when the kernel writes it to a core file.
    _libc.madvise(result, size, _MADV_DONTDUMP)
    return int(result)
