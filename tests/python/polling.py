"""Waiting for something that no event tells: looking again and again, until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0


def until(look: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Look until the answer is true, and give it.

    Raises:
        AssertionError: it was not by the deadline.
    """
    deadline = time.monotonic() + patience
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {patience} s for {what}; last seen: {answer!r}"
        time.sleep(0.005)
