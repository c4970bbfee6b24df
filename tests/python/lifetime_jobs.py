"""What the lifetime machine has its workers do, in a module that needs no more than that."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np

from theus import process

kept: dict[str, Any] = {}


class Look(NamedTuple):
    """What an array looks like, and what is in it."""

    dtype: str
    shape: tuple[int, ...]
    digest: str


def look(array: Any) -> Look:
    """The same for equal arrays, in whatever process and with whatever strides."""
    found = np.asarray(array)
    digest = hashlib.blake2b(found.tobytes(), digest_size=16).hexdigest()
    return Look(str(found.dtype), found.shape, digest)


def pattern(dtype: Any, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """Values of any dtype that differ from place to place and from seed to seed."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    numbers = (np.arange(count) * 7 + seed * 31 + 1) % 113
    if dtype.names:
        values = np.zeros(count, dtype)
        for name in dtype.names:
            values[name] = numbers.astype(dtype[name])
    elif dtype.kind == "V":
        raw = np.repeat(numbers.astype(np.uint8), dtype.itemsize)
        values = raw.view(dtype) if count else np.zeros(0, dtype)
    elif dtype.kind in "mM":
        values = numbers.astype(np.int64).view(dtype)
    else:
        values = numbers.astype(dtype)
    return values.reshape(shape)


@process(parallel=True)
def look_at(ctx: Any, key: str) -> Look:
    """Read a key in place."""
    return look(ctx.heavy[key])


@process(parallel=True)
def keep(ctx: Any, name: str, key: str) -> None:
    """Keep a view beyond the task."""
    kept[name] = ctx.heavy[key][...]


def look_at_kept() -> dict[str, Look]:
    """What is kept here."""
    return {name: look(array) for name, array in kept.items()}


def forget() -> None:
    """Keep nothing any more."""
    kept.clear()


@process(parallel=True)
def write_privately(ctx: Any, key: str, seed: int) -> tuple[Look, Look]:
    """Write to a private copy: what it looks like then, and what the key does."""
    mine = ctx.heavy.cow(key)
    mine[...] = pattern(mine.dtype, mine.shape, seed)
    return look(mine), look(ctx.heavy[key])


def look_at_argument(array: Any) -> Look:
    """Read an array that came as an argument."""
    return look(array)


@process(parallel=True)
def make(ctx: Any, dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    """An array that a worker allocates and fills."""
    array = ctx.heavy.alloc("made", shape, dtype)
    array[...] = pattern(dtype, shape, seed)
    return array


@process(parallel=True, outputs=["heavy.k0"])
def make_output(ctx: Any, dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    """The same, for the state."""
    array = ctx.heavy.alloc("k0", shape, dtype)
    array[...] = pattern(dtype, shape, seed)
    return array
