"""Every error that theus raises on purpose.

All of them are `TheusError`, and each is also what a caller would catch who does not know theus:
a full heap is a `MemoryError`, a dead worker a `BrokenProcessPool`. A message says what happened,
where, and what to do; what a program may want to look at is an attribute as well.

Two classes have bases that are slow to import (`concurrent.futures.process`, on Python 3.10 also
`asyncio`). They are built when they are first asked for, so that ``import theus`` stays cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

__all__ = [
    "Conflict",
    "ContextError",
    "ContractViolationError",
    "EngineClosed",
    "ForkedProcessError",
    "HeapFull",
    "LargeArgumentWarning",
    "RemoteError",
    "RemoteTraceback",
    "SegmentGone",
    "StatelessnessError",
    "StatelessnessWarning",
    "StreamFull",
    "TaskTimeout",
    "TheusError",
    "TheusWarning",
    "UnknownProcess",
    "WorkerCrashed",
]


class TheusError(Exception):
    """The base of everything that theus raises.

    Attributes:
        code: the library's status code when the error came from there (``theus.h``), else 0.
        detail: what the library said besides the text, as a dict; empty when it said nothing.
    """

    def __init__(
        self, message: str = "", *, code: int = 0, detail: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.detail: dict[str, Any] = detail if detail is not None else {}


class Conflict(NamedTuple):
    """One reason why a compare-and-swap lost.

    Attributes:
        path: the path in ``state.data`` (dotted), or the key of a heavy array; "": all of them.
        changed_at: the version in which it was last changed.
        heavy: True when `path` is the key of a heavy array.
    """

    path: str
    changed_at: int
    heavy: bool = False


class ContextError(TheusError):
    """A compare-and-swap lost: somebody else changed the same thing in between.

    Attributes:
        expected: the version that the caller had read.
        found: the version that is current.
        conflicts: what changed after `expected`, one `Conflict` each.
    """

    def __init__(
        self,
        message: str = "",
        *,
        expected: int = 0,
        found: int = 0,
        conflicts: Sequence[Conflict] = (),
        code: int = 0,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, detail=detail)
        self.expected = expected
        self.found = found
        self.conflicts: tuple[Conflict, ...] = tuple(conflicts)


class ContractViolationError(TheusError, PermissionError):
    """A process did what its contract does not allow, or its inputs are not there."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __str__(self) -> str:
        return Exception.__str__(self)


class StatelessnessError(TheusError, TypeError):
    """Something that cannot leave this process was about to be sent to another one.

    Attributes:
        path: where it is, as an expression: ``inputs['db'].conn``.
        type_name: the type of the culprit, with its module.
    """

    def __init__(self, message: str = "", *, path: str = "", type_name: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.type_name = type_name


class UnknownProcess(TheusError, KeyError, ValueError):
    """No process of that name, or more than one.

    Attributes:
        name: the name that was asked for.
        known: the names there are.
    """

    def __init__(self, message: str = "", *, name: str = "", known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.known: tuple[str, ...] = tuple(known)

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return Exception.__str__(self)


class HeapFull(TheusError, MemoryError):
    """There is no room for an array, by the engine's own limit or by the machine's.

    Attributes:
        asked: bytes that were asked for.
        in_use: bytes that the process's engines hold.
        limit: bytes that they may hold.
        source: where the limit comes from.
        holders: the largest holders, as the library lists them.
        held_by_tasks: bytes that come back when tasks have ended, if there is room then; else 0.
    """

    def __init__(
        self,
        message: str = "",
        *,
        asked: int = 0,
        in_use: int = 0,
        limit: int = 0,
        source: str = "",
        holders: Sequence[Any] = (),
        held_by_tasks: int = 0,
        code: int = 0,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, detail=detail)
        self.asked = asked
        self.in_use = in_use
        self.limit = limit
        self.source = source
        self.holders: tuple[Any, ...] = tuple(holders)
        self.held_by_tasks = held_by_tasks


class StreamFull(TheusError, TimeoutError):
    """All frames that a stream keeps were in use until the timeout.

    Attributes:
        key: what its frames are published under.
        versions: those that somebody has; the last one is the current version.
        building: how many frames are under construction.
    """

    def __init__(
        self,
        message: str = "",
        *,
        key: str = "",
        versions: Sequence[int] = (),
        building: int = 0,
        code: int = 0,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, detail=detail)
        self.key = key
        self.versions: tuple[int, ...] = tuple(versions)
        self.building = building

    def __str__(self) -> str:
        return Exception.__str__(self)


class SegmentGone(TheusError, LookupError):
    """A reference to a shared array cannot be resolved: its memory is not reachable from here.

    Attributes:
        segment: number of the segment.
        key: the key under which the array was known, or None.
    """

    def __init__(self, message: str = "", *, segment: int = 0, key: str | None = None) -> None:
        super().__init__(message)
        self.segment = segment
        self.key = key


class EngineClosed(TheusError, RuntimeError):
    """The engine was closed; only the arrays that were taken from it still work."""


class ForkedProcessError(TheusError, RuntimeError):
    """theus was used in a child that was forked from the process that uses theus."""


class RemoteError(TheusError):
    """What came of a task could not be brought here: what it raised, or what it returned.

    Attributes:
        type_name: the type of the exception in the worker, with its module; or of the one that was
            raised here when the result was loaded.
        text: its message.
        traceback: its formatted traceback.
    """

    def __init__(
        self, message: str = "", *, type_name: str = "", text: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a worker: shows the traceback from there."""

    def __init__(self, traceback: str = "") -> None:
        super().__init__(traceback)
        self.traceback = traceback

    def __str__(self) -> str:
        return f'\n"""\n{self.traceback.rstrip()}\n"""'


class TheusWarning(UserWarning):
    """The base of the warnings that theus gives."""


class LargeArgumentWarning(TheusWarning):
    """A large array travels by copy although it could be shared."""


class StatelessnessWarning(TheusWarning):
    """A process uses something of its module that every worker will open anew."""


class _WorkerCrashedMixin(TheusError):
    """What WorkerCrashed adds to its bases; see `WorkerCrashed`."""

    def __init__(
        self,
        message: str = "",
        *,
        pid: int = 0,
        signal: int = 0,
        exit_code: int | None = None,
        reason: str = "",
        task: str = "",
        oom: bool = False,
        peak_rss: int | None = None,
        code: int = 0,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, detail=detail)
        self.pid = pid
        self.signal = signal
        self.exit_code = exit_code
        self.reason = reason
        self.task = task
        self.oom = oom
        self.peak_rss = peak_rss


if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool

    class WorkerCrashed(_WorkerCrashedMixin, BrokenProcessPool):
        """The worker that ran the task died. Other tasks and later ones are not affected.

        Attributes:
            pid: the worker's process id.
            signal: number of the signal that ended it, 0 when it exited.
            exit_code: its exit code, None when a signal ended it.
            reason: what is known about the cause.
            task: name of the function that it ran.
            oom: True when the kernel ended it because memory ran out; `reason` names the limit.
            peak_rss: how large the worker had grown, in bytes; None when that is not known. After
                `oom` it may have been more: the kernel takes memory back before it looks.
        """

    class TaskTimeout(TheusError, TimeoutError):
        """The task ran longer than its timeout; its worker was ended.

        It is the builtin, the asyncio and the concurrent.futures TimeoutError at once, which are
        three different classes on Python 3.10.
        """


def _build_worker_crashed() -> type:
    from concurrent.futures.process import BrokenProcessPool

    doc = "The worker that ran the task died. Other tasks and later ones are not affected."
    return _late_class("WorkerCrashed", (_WorkerCrashedMixin, BrokenProcessPool), doc)


def _build_task_timeout() -> type:
    import asyncio.exceptions
    import concurrent.futures

    bases: list[type] = [TheusError]
    for base in (
        asyncio.exceptions.TimeoutError,
        concurrent.futures.TimeoutError,
        TimeoutError,
    ):
        if base not in bases:
            bases.append(base)
    body = {"__str__": lambda self: Exception.__str__(self)}
    doc = "The task ran longer than its timeout; its worker was ended."
    return _late_class("TaskTimeout", tuple(bases), doc, body)


def _late_class(
    name: str, bases: tuple[type, ...], doc: str, body: dict[str, Any] | None = None
) -> type:
    namespace = {"__module__": __name__, "__qualname__": name, "__doc__": doc, **(body or {})}
    return type(name, bases, namespace)


_LATE = {"WorkerCrashed": _build_worker_crashed, "TaskTimeout": _build_task_timeout}


def __getattr__(name: str) -> Any:
    build = _LATE.get(name)
    if build is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # setdefault: two threads that ask at once must get the same class, or `except` would miss.
    return globals().setdefault(name, build())
