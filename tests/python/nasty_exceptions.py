"""Exceptions that are hard to bring home: functions that raise them in a worker."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import types
from typing import Any

LONG_TEXT = 1 << 30
LONG_NAME = 16 << 20


class TwoArguments(Exception):
    """It pickles and does not load: __init__ takes more than args holds."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)


class ReducesTo(Exception):
    """Its __reduce__ gives anything."""

    def __init__(self, reduced: Any) -> None:
        super().__init__("reduces to something else")
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class RefusesToReduce(Exception):
    """Its __reduce__ raises."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__("refuses to reduce")
        self.kind = kind

    def __reduce__(self) -> Any:
        raise self.kind


class DiffersInHost(Exception):
    """It loads well in the worker, where that is tried, and badly in the host."""

    def __init__(self, host: int, how: str) -> None:
        super().__init__("differs in the host")
        self.arguments = host, how

    def __reduce__(self) -> Any:
        return load_badly_in_host, self.arguments


def load_badly_in_host(host: int, how: str) -> Any:
    """Do something else in the host than elsewhere."""
    if os.getpid() != host:
        return DiffersInHost(host, how)
    if how == "raises":
        raise ValueError("not here")
    if how == "leaves":
        sys.exit(7)
    return {"is no exception": 5, "would interrupt": KeyboardInterrupt()}[how]


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Leaves(Mute):
    """Asked for its text it would end the process."""

    def __str__(self) -> str:
        sys.exit(9)

    __repr__ = __str__


class SaysNumber(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]

    __repr__ = __str__


class LyingText(str):
    """A text whose methods do not work."""

    __slots__ = ()

    def isascii(self) -> bool:
        raise RuntimeError("who knows")

    def encode(self, *_: Any, **__: Any) -> bytes:
        raise RuntimeError("not with me")

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError("not with me")


class SaysLies(Exception):
    """Its text is one of those."""

    def __str__(self) -> str:
        return LyingText("a lie")


class SaysMuch(Exception):
    """Its text is very long."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__("much")

    def __str__(self) -> str:
        return "x" * LONG_TEXT

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise TypeError("not me")


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """It refuses every assignment, so it pickles and does not load."""

    number: int


class Unassignable(Exception):
    """It has nothing to be assigned when it is loaded, and refuses its traceback and cause."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


class _Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__"):
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=_Nameless):
    """Its class cannot be named."""


class Masked(Exception):
    """It claims to be something else."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return int


class Grouped(Exception):
    """It looks like a group and is none."""

    @property
    def exceptions(self) -> Any:
        raise RuntimeError("no exceptions")


def raise_it(kind: str, *arguments: Any) -> None:
    """Raise one of the classes of this module, made here."""
    raise globals()[kind](*arguments)


def raise_with_lock() -> None:
    """It holds what cannot be pickled."""
    error = ValueError("holds a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def raise_from_a_module_of_the_worker() -> None:
    """Its class is in a module that only this process has."""
    module = types.ModuleType("only_in_this_worker")
    sys.modules[module.__name__] = module
    exec("class Lost(Exception): pass", module.__dict__)
    raise module.Lost("far away")


def raise_cycle() -> None:
    """Causes and contexts that lead back to themselves."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__ = second.__context__ = first
    raise first


def raise_chain(length: int) -> None:
    """A chain of causes."""
    error = ValueError("the last")
    for number in range(length):
        cause = ValueError(f"cause {number}")
        cause.__cause__, error = error, cause
    raise error


def raise_long_name() -> None:
    """Its class has a very long name."""
    raise type("N" * LONG_NAME, (TwoArguments,), {})("long", 1)


def raise_group() -> None:
    """Several at once."""
    raise ExceptionGroup("some", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])])  # noqa: F821


def raise_base_group() -> None:
    """Several at once, one of which would end a process."""
    raise BaseExceptionGroup("some", [ValueError("a"), SystemExit(3)])  # noqa: F821


def raise_deep_group(depth: int) -> None:
    """A group in a group in a group."""
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("around", [error])  # noqa: F821
    raise error


def raise_base(kind: type[BaseException]) -> None:
    """What would end a process."""
    raise kind("raised in a task")
