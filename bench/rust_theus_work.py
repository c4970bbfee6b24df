"""The same work as work.py has, under the same names, as programs for the Rust Theus write it."""

from __future__ import annotations

from typing import Any

import work
from theus import process


@process(parallel=True)
def nothing(ctx: Any) -> None:
    """Does nothing."""


@process(parallel=True)
def first_of(ctx: Any) -> float:
    """One element of a heavy array."""
    return work.first_of(ctx.heavy[ctx.input["argument"]])


@process(parallel=True)
def ones(ctx: Any) -> Any:
    """A result of some size."""
    return work.ones(ctx.input["argument"])


@process(parallel=True)
def sort_sum(ctx: Any) -> float:
    """A job of numpy's that uses one thread."""
    return work.sort_sum(ctx.input["argument"])
