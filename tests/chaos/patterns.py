"""Arrays whose whole content follows from a number, so that anybody can tell what is right."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np

# 2 MiB: larger than what travels inside a frame, or lives in memory shared with other arrays.
LARGE = 1 << 18
SMALL = 1000
# So many different ones; the referee knows the checksum of each after the first time.
KINDS = 64


def pattern(number: int, length: int) -> Any:
    """`length` 64-bit numbers, no two patterns equal at any place."""
    steps = np.arange(length, dtype=np.uint64)
    steps *= np.uint64(0x9E3779B97F4A7C15)
    steps += np.uint64(number % KINDS + 1)
    return steps


def checksum(array: Any) -> int:
    """A checksum of all bytes of an array, read in place."""
    return zlib.crc32(np.asarray(array).view(np.uint8).data)


def expected(number: int, length: int, added: int = 0) -> int:
    """The checksum of a pattern, with a number added to each element."""
    return _expected(number % KINDS, length, added)


def is_a_pattern(found: int, length: int) -> bool:
    """Whether this is the checksum of any pattern."""
    return any(expected(number, length) == found for number in range(KINDS))


@functools.cache
def _expected(number: int, length: int, added: int) -> int:
    return checksum(pattern(number, length) + np.uint64(added))
