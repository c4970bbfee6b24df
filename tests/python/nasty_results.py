"""Results that are hard to bring home."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any


class Endless:
    """Its pickle has no end: each has another one in it."""

    def __reduce__(self) -> Any:
        return Endless, (Endless(),)


class Slow:
    """To pickle it takes for ever."""

    def __reduce__(self) -> Any:
        while True:
            time.sleep(1)


class LeavesWhenPickled:
    """Pickling it would end the process."""

    def __reduce__(self) -> Any:
        sys.exit(5)


class LoadsBadly:
    """Loaded in the host it does something bad."""

    def __init__(self, host: int, kind: type[BaseException]) -> None:
        self.host = host
        self.kind = kind

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if os.getpid() == self.host:
            raise self.kind("on purpose")


class Mute:
    """A key whose repr cannot be had, or is very long."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __repr__(self) -> str:
        if not self.length:
            raise RuntimeError("no repr")
        return "x" * self.length


class Cycle:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.me = self
        self.all = [self, {"me": self}]


def give(kind: str, *arguments: Any) -> Any:
    """One of the classes of this module, made here."""
    return globals()[kind](*arguments)


def give_under_key(length: int) -> Any:
    """What cannot be pickled, under a key that is hard to name."""
    return {Mute(length): threading.Lock()}


def give_recursive() -> Any:
    """A list and a dict that hold themselves."""
    items: list[Any] = [1]
    items.append(items)
    table = {"items": items}
    table["table"] = table  # type: ignore[assignment]
    return table


def give_bad_at(number: int, bad: int, kind: str, *arguments: Any) -> Any:
    """The number, but at one place something else."""
    return give(kind, *arguments) if number == bad else (number,)
