"""The work that all entrants do, in a module that workers of every kind can import."""

from __future__ import annotations

from typing import Any

import numpy as np

from theus import process


def nothing() -> None:
    """Does nothing."""


@process(parallel=True)
def nothing_with_ctx(ctx: Any) -> None:
    """The same as theus' users write it."""


def increment(x: int) -> int:
    """As little as a map can do."""
    return x + 1


def first_of(array: Any) -> float:
    """One element of an array that came as an argument."""
    return float(array[0])


@process(parallel=True)
def first_of_key(ctx: Any, key: str) -> float:
    """One element of a heavy array."""
    return float(ctx.heavy[key][0])


def ones(nbytes: int) -> Any:
    """A result of some size."""
    return np.ones(nbytes, np.uint8)


@process(parallel=True)
def heavy_ones(ctx: Any, nbytes: int) -> Any:
    """The same, allocated where the host reads it."""
    array = ctx.heavy.alloc("result", nbytes, np.uint8)
    array[:] = 1
    return array


def product_sum(left: Any, right: Any) -> float:
    """A matrix product with whatever BLAS does by itself."""
    return float((left @ right).sum())


@process(parallel=True)
def product_of_keys(ctx: Any, left: str, right: str) -> float:
    """The same of heavy arrays."""
    return product_sum(ctx.heavy[left], ctx.heavy[right])


def sort_sum(seed: int) -> float:
    """A job of numpy's that uses one thread."""
    values = np.random.default_rng(seed).random(1_000_000)
    values.sort()
    return float(np.cumsum(np.sqrt(values))[-1])
