"""Functions that the C tests run in workers, by name."""

from __future__ import annotations

import os
import signal

from theus.contracts import process


@process(parallel=True)
def total(ctx, key):  # type: ignore[no-untyped-def]
    """Sums a heavy array."""
    return float(ctx.heavy[key].sum())


def sum_of(a: int, b: int) -> int:
    """A small result."""
    return a + b


def letters(count: int) -> bytes:
    """A result of some size."""
    return b"a" * count


def fail(text: str) -> None:
    """Raises."""
    raise ValueError(text)


def die() -> None:
    """Takes its worker along."""
    os._exit(3)


def hang() -> None:
    """Never returns."""
    while True:
        signal.pause()


@process(parallel=True)
def write_part(ctx, start, stop):  # type: ignore[no-untyped-def]
    """Writes its part of an output."""
    ctx.out[start:stop] = range(start, stop)
