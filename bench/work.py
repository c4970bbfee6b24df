"""The work that all entrants do, in a module that workers of every kind can import."""

from __future__ import annotations

from typing import Any

import numpy as np


def nothing() -> None:
    """Does nothing."""


def increment(x: int) -> int:
    """As little as a map can do."""
    return x + 1


def first_of(array: Any) -> float:
    """One element of an array that came as an argument."""
    return float(array[0])


def ones(nbytes: int) -> Any:
    """A result of some size."""
    return np.ones(nbytes, np.uint8)


def product_sum(left: Any, right: Any) -> float:
    """A matrix product with whatever BLAS does by itself."""
    return float((left @ right).sum())


def sort_sum(seed: int) -> float:
    """A job of numpy's that uses one thread."""
    values = np.random.default_rng(seed).random(1_000_000)
    values.sort()
    return float(np.cumsum(np.sqrt(values))[-1])
