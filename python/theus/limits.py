"""The options of a single call."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

__all__ = ["CAS_RETRIES", "Limits"]

CAS_RETRIES = 100  # after that many losses in a row something else is wrong


class Limits(NamedTuple):
    """Options of a single call.

    Attributes:
        timeout: seconds that it may run; None: any.
        retries: how often it is started again after a crash of its worker.
        cas_retries: how often what is not parallel runs again after its commit has lost.
    """

    timeout: float | None = None
    retries: int = 0
    cas_retries: int = CAS_RETRIES

    @classmethod
    def of(cls, timeout: float | None, retries: int, cas_retries: int = CAS_RETRIES) -> Limits:
        """Check them.

        Raises:
            ValueError: a timeout that is not positive, or negative retries.
            TypeError: they are no numbers.
        """
        try:
            finite = timeout is None or math.isfinite(timeout)
        except TypeError:
            raise TypeError(
                f"timeout must be a number of seconds or None, not {timeout!r}"
            ) from None
        if timeout is not None and not (finite and timeout > 0):
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
        for name, number in (("retries", retries), ("cas_retries", cas_retries)):
            try:
                operator.index(number)
            except TypeError:
                raise TypeError(f"{name} must be a whole number, not {number!r}") from None
            if number < 0:
                raise ValueError(f"{name} must not be negative, but is {number}")
        return cls(timeout, retries, cas_retries)

    @property
    def timeout_ms(self) -> int:
        return 0 if self.timeout is None else max(1, math.ceil(self.timeout * 1000))
