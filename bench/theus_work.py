"""The same work as work.py has, as users of theus write it."""

from __future__ import annotations

from typing import Any

from theus import process
from work import product_sum


@process(parallel=True)
def nothing_with_ctx(ctx: Any) -> None:
    """Does nothing."""


@process(parallel=True)
def first_of_key(ctx: Any, key: str) -> float:
    """One element of a heavy array."""
    return float(ctx.heavy[key][0])


@process(parallel=True)
def heavy_ones(ctx: Any, nbytes: int) -> Any:
    """A result of some size, allocated where the host reads it."""
    array = ctx.heavy.alloc("result", nbytes, "u1")
    array[:] = 1
    return array


@process(parallel=True)
def product_of_keys(ctx: Any, left: str, right: str) -> float:
    """A matrix product of heavy arrays."""
    return product_sum(ctx.heavy[left], ctx.heavy[right])
