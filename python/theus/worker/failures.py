"""What went wrong in a task, in a form that can travel."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..payload import Failure, decode, encode

_LONGEST_MESSAGE = 4 << 10
_LONGEST_TRACEBACK = 32 << 10
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def describe(error: BaseException, keys_read: Sequence[str] = ()) -> Failure:
    """Describe an exception; afterwards nothing of the task's frames is kept alive by it.

    Args:
        error: what the task raised.
        keys_read: heavy keys that it has looked at, for numpy's errors about read-only arrays.
    """
    with contextlib.suppress(Exception):  # the exception's own methods may fail
        _explain_read_only(error, keys_read)
    kind = type_name(error)
    message = _cut(_text(error), _LONGEST_MESSAGE)
    trace = _cut(_format(error), _LONGEST_TRACEBACK)
    _drop_tracebacks(error)
    return Failure(kind, message, trace, _pickled(error))


def type_name(error: BaseException) -> str:
    """The type as code would name it."""
    kind = type(error)
    if kind.__module__ in ("builtins", None):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def unpicklable(result: Any, name: str, error: BaseException) -> TypeError:
    """The error for a result that cannot be sent, with the path to the obstacle."""
    path, culprit = _obstacle(result)
    what = f"a {type_name_of(culprit)}" + (f" at result{path}" if path else "")
    return TypeError(
        f"the result of {name} cannot be sent to the host: {what} cannot be pickled "
        f"({type(error).__name__}: {_cut(_text(error), 300)}). Return plain data: numbers, text, "
        "arrays, and lists or dicts of them."
    )


def type_name_of(value: Any) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _pickled(error: BaseException) -> bytes | None:
    """A pickle that has been seen to load again, else None."""
    if not isinstance(error, Exception):
        # SystemExit, KeyboardInterrupt, CancelledError: raised in the host they would end it, or
        # its event loop, while here they ended one task.
        return None
    try:
        # Shared arrays by value: no descriptors travel with a failure.
        spans = encode(error, refers=lambda _: False).spans
        if len(spans) > 1:  # an exception that carries large arrays: its text will do
            return None
        # Many exceptions pickle and do not load: their __init__ takes other arguments than args.
        if type(decode(spans)) is not type(error):
            return None
        return bytes(spans[0])
    except BaseException:
        return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as second:
        return f"<its text cannot be had: {type(second).__name__}>"


def _format(error: BaseException) -> str:
    """The traceback from where user code begins."""
    try:
        lines = traceback.format_exception(type(error), error, _user_part(error.__traceback__))
        return "".join(lines)
    except BaseException as second:
        return f"{type_name(error)} (its traceback cannot be formatted: {type(second).__name__})\n"


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace or first


def _drop_tracebacks(error: BaseException) -> None:
    """Let go of the frames, whose local variables hold arrays and thereby segments."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        item = todo.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        item.__traceback__ = None
        todo += [item.__cause__, item.__context__]
        todo += getattr(item, "exceptions", ())  # of a group


def _explain_read_only(error: BaseException, keys_read: Sequence[str]) -> None:
    """Add what numpy cannot know to its errors about read-only arrays."""
    if not isinstance(error, (ValueError, BufferError)) or not keys_read:
        return
    text = _text(error)
    about_writing = any(word in text.lower() for word in ("read-only", "readonly", "writeable"))
    if not about_writing or "ctx.heavy.cow" in text:
        return
    keys = ", ".join(repr(key) for key in keys_read[:10])
    note = (
        f"This task has read ctx.heavy[{keys}]; those arrays are read-only, others are reading "
        f"them. ctx.heavy.cow({keys_read[0]!r}) is a private copy that can be written to; in the "
        f"host, engine.heavy.edit({keys_read[0]!r}) makes the next version."
    )
    if hasattr(error, "add_note"):
        error.add_note(note)
    elif error.args and isinstance(error.args[0], str):  # Python 3.10
        error.args = (f"{error.args[0]}\n{note}", *error.args[1:])


def _obstacle(value: Any) -> tuple[str, Any]:
    """The innermost part of a value that cannot be pickled, and the path to it."""
    path = ""
    for _ in range(20):
        step = next((s for s in _parts(value) if not _pickles(s[1])), None)
        if step is None:
            break
        path += step[0]
        value = step[1]
    return path, value


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{_short(key)}]", item) for key, item in list(value.items())[:1000]]
    if isinstance(value, (list, tuple)):
        return [(f"[{i}]", item) for i, item in enumerate(value[:1000])]
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(value, type):
        return [(f".{name}", item) for name, item in list(attributes.items())[:1000]]
    return []


def _pickles(value: Any) -> bool:
    try:
        encode(value)
    except Exception:
        return False
    return True


def _short(key: Any) -> str:
    try:
        return _cut(repr(key), 60)
    except Exception:
        return f"<{type(key).__name__}>"


def _cut(text: str, limit: int) -> str:
    """The text with its middle left out if it is longer than `limit` bytes in UTF-8."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))
    if size <= limit:
        return text
    # A character has up to 4 bytes, up to 12 when it is a lone surrogate that is spelt out.
    room = limit if text.isascii() else limit // 4
    half = max(room // 2 - 20, 1)
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
