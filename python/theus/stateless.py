"""What cannot leave this process, and where it sits.

Nothing here decides what may be sent: pickling does. When pickling fails, the object is walked to
the part that cannot be pickled, so that the error can say ``inputs['db'].conn`` rather than
"cannot pickle '_thread.lock' object". One thing is refused although cloudpickle would take it: an
open file, which it turns into a copy of the file's text.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from .by_value import ByValuePickler
from .errors import StatelessnessError

__all__ = ["StrictPickler", "bound_to_process", "explain", "type_name"]

# What a failed attempt to pickle raises; anything else (no memory, too deep) is no matter of state.
PICKLING_ERRORS = (TypeError, pickle.PicklingError, AttributeError, NotImplementedError)

_OPEN = "Open it inside the process, from its path or address, which can be sent."
_LOCK = (
    "Each worker is a process of its own, so a lock would guard nothing there. Leave it out; the "
    "state changes by compare-and-swap, without locks."
)
_ADVICE = {
    "_thread.lock": _LOCK,
    "_thread.RLock": _LOCK,
    "threading._RLock": _LOCK,
    "threading.Condition": _LOCK,
    "threading.Event": _LOCK,
    "threading.Semaphore": _LOCK,
    "threading.Barrier": _LOCK,
    "threading.Thread": "A thread lives in this process only. Leave it out.",
    "_thread._local": "It belongs to the threads of this process. Leave it out.",
    "queue.Queue": "Send its items as a list, or give the process one item per call.",
    "_queue.SimpleQueue": "Send its items as a list, or give the process one item per call.",
    "_io.TextIOWrapper": _OPEN,
    "_io.BufferedReader": _OPEN,
    "_io.BufferedWriter": _OPEN,
    "_io.BufferedRandom": _OPEN,
    "_io.FileIO": _OPEN,
    "mmap.mmap": "Put the data into engine.heavy and read it through ctx.heavy.",
    "_socket.socket": _OPEN,
    "sqlite3.Connection": _OPEN,
    "sqlite3.Cursor": "Fetch the rows and send those.",
    "builtins.generator": "Send its items as a list, or map over it: engine.map(fn, generator).",
    "builtins.async_generator": "Collect its items and send those.",
    "builtins.coroutine": "Await it and send the result.",
    "_asyncio.Future": "Await it and send the result.",
    "_asyncio.Task": "Await it and send the result.",
    "asyncio.events.AbstractEventLoop": "It belongs to this process. Leave it out.",
    "concurrent.futures._base.Future": "Send its result().",
    "subprocess.Popen": "It belongs to this process. Leave it out.",
    "multiprocessing.shared_memory.SharedMemory": "Use engine.heavy.alloc and ctx.heavy instead.",
    "theus.engine.TheusEngine": (
        "A process reads ctx.heavy and ctx.state, and changes the state by what it returns. Leave "
        "the engine out."
    ),
    "theus.state.State": "A process reads ctx.state, or send state.to_dict().",
}
_GENERIC = (
    "Make it inside the process from something that can be sent, or give it __reduce__ if it can "
    "travel."
)


class StrictPickler(ByValuePickler):
    """Pickles by value, except that an open file is an error and not a copy of its text."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _FILES) and not _is_standard_stream(obj):
            raise pickle.PicklingError(f"cannot pickle an open file: {obj!r}")
        return super().reducer_override(obj)


_FILES = (
    io.TextIOWrapper,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.FileIO,
)


def type_name(value: Any) -> str:
    """``module.qualname`` of a value's type, builtins without the module."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def bound_to_process(value: Any) -> str | None:
    """What to do about a value of a kind that belongs to this process, None for any other."""
    if isinstance(value, type):
        return None
    if _is_standard_stream(value):
        return None
    for kind in type(value).__mro__:
        advice = _ADVICE.get(f"{kind.__module__}.{kind.__qualname__}")
        if advice is not None:
            return advice
    return None


def explain(value: Any, path: str, failure: BaseException) -> BaseException:
    """The error to raise when pickling `value` failed.

    Args:
        value: what was to be sent.
        path: what to call it, e.g. ``"inputs"``.
        failure: what pickling raised.

    Returns:
        A StatelessnessError that names the culprit, or `failure` itself when it is of another
        kind.
    """
    if not isinstance(failure, PICKLING_ERRORS):
        return failure
    place, culprit = _find(value, path, set())
    name = type_name(culprit)
    advice = bound_to_process(culprit) or _GENERIC
    error = StatelessnessError(
        f"{place} is a {name}, which cannot be sent to another process. {advice} ({failure})",
        path=place,
        type_name=name,
    )
    error.__cause__ = failure
    return error


def pickles(value: Any) -> bool:
    """Whether a value can be sent. Its arrays are not copied for the test."""
    try:
        StrictPickler(Sink(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except RecursionError:
        return True  # too deep to say; the failure that is being explained was another one
    except Exception:
        return False
    return True


class Sink:
    """A file that forgets what is written."""

    def write(self, data: Any) -> int:
        return len(data)


def _find(value: Any, path: str, seen: set[int]) -> tuple[str, Any]:
    """The innermost part of `value` that cannot be pickled by itself, and where it is."""
    if bound_to_process(value) is not None or id(value) in seen:
        return path, value
    seen.add(id(value))
    parts = list(_parts(value))
    bad = _first_bad(parts)
    if bad is None:
        return path, value
    suffix, part = bad
    return _find(part, path + suffix, seen)


def _first_bad(parts: list[tuple[str, Any]]) -> tuple[str, Any] | None:
    """The first part that cannot be pickled, found by halves: lists may be long."""
    if not parts or pickles([part for _, part in parts]):
        return None
    while len(parts) > 1:
        half = len(parts) // 2
        left = parts[:half]
        parts = left if not pickles([part for _, part in left]) else parts[half:]
    return parts[0]


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{_short(key)}]", item
        for key in value:
            yield f"[key {_short(key)}]", key
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield "{…}", item
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    yield from _attributes(value)


def _function_parts(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
        try:
            yield f".closure[{name!r}]", cell.cell_contents
        except ValueError:  # assigned later
            continue
    for name, item in used_globals(fn).items():
        yield f".globals[{name!r}]", item
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    defaults = fn.__defaults__ or ()
    for name, item in zip(names[len(names) - len(defaults) :], defaults, strict=False):
        yield f".defaults[{name!r}]", item
    for name, item in (fn.__kwdefaults__ or {}).items():
        yield f".defaults[{name!r}]", item


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (type, types.ModuleType)):
        return
    for name, item in dict(getattr(value, "__dict__", None) or {}).items():
        yield f".{name}", item
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name in ("__dict__", "__weakref__"):
                continue
            try:
                yield f".{name}", getattr(value, name)
            except AttributeError:
                continue
    if type(value).__module__ == "functools" and hasattr(value, "func"):  # a partial
        yield ".func", value.func
        yield ".args", value.args
        yield ".keywords", value.keywords


def used_globals(fn: types.FunctionType) -> dict[str, Any]:
    """The globals that a function's code names, nested functions included."""
    found: dict[str, Any] = {}
    codes = [fn.__code__]
    while codes:
        code = codes.pop()
        for name in code.co_names:
            if name in fn.__globals__:
                found[name] = fn.__globals__[name]
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return found


def _is_standard_stream(value: Any) -> bool:
    return any(
        value is stream
        for stream in (
            sys.stdin,
            sys.stdout,
            sys.stderr,
            sys.__stdin__,
            sys.__stdout__,
            sys.__stderr__,
        )
        if stream is not None
    )


def _short(key: Any, limit: int = 60) -> str:
    describe: Callable[[Any], str] = repr
    try:
        text = describe(key)
    except Exception:
        text = f"<{type_name(key)}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def outside() -> int:
    """The stacklevel of the first frame outside this package, for a warning's place."""
    level = 1
    frame = sys._getframe(1)
    package = __name__.rpartition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        frame = frame.f_back
        level += 1
    return level
