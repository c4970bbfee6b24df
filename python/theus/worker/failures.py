"""What went wrong in a task, in a form that can travel."""

from __future__ import annotations

import builtins
import contextlib
import os
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..payload import Failure, decode, encode

_LONGEST_MESSAGE = 4 << 10
_LONGEST_TRACEBACK = 32 << 10
_LONGEST_NAME = 200
_LONGEST_CHAIN = 50
# What every exception and type has, whatever a class puts under these names: a frozen dataclass,
# for one, refuses every assignment.
_TRACEBACK: Any = BaseException.__dict__["__traceback__"]
_CAUSE: Any = BaseException.__dict__["__cause__"]
_CONTEXT: Any = BaseException.__dict__["__context__"]
_QUALNAME: Any = type.__dict__["__qualname__"]
_MODULE: Any = type.__dict__["__module__"]
_GROUPS: Any = getattr(builtins, "BaseExceptionGroup", ())  # Python 3.11
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def describe(error: BaseException, keys_read: Sequence[str] = ()) -> Failure:
    """Describe an exception; afterwards nothing of the task's frames is kept alive by it.

    It does not raise, whatever the exception's own methods do.

    Args:
        error: what the task raised.
        keys_read: heavy keys that it has looked at, for numpy's errors about read-only arrays.
    """
    with contextlib.suppress(BaseException):
        _explain_read_only(error, keys_read)
    kind = type_name_of(error)
    message = _cut(_text(error), _LONGEST_MESSAGE)
    _shorten_chain(error)
    trace = _cut(_format(error), _LONGEST_TRACEBACK)
    with contextlib.suppress(BaseException):
        _drop_tracebacks(error)
    return Failure(kind, message, trace, _pickled(error))


def type_name_of(value: Any) -> str:
    """The type as code would name it."""
    kind = type(value)
    # Through `type` itself: a metaclass may have something else under these names.
    name = _cut(_exact(_QUALNAME.__get__(kind)), _LONGEST_NAME)
    module = _MODULE.__get__(kind)
    if not isinstance(module, str) or module == "builtins":
        return name
    return f"{_cut(_exact(module), _LONGEST_NAME)}.{name}"


def unpicklable(result: Any, name: str, error: BaseException) -> TypeError:
    """The error for a result that cannot be sent, with the path to the obstacle."""
    path, culprit = "", result
    with contextlib.suppress(BaseException):  # it may have methods that fail
        path, culprit = _obstacle(result)
    what = f"a {type_name_of(culprit)}" + (f" at result{path}" if path else "")
    return TypeError(
        f"the result of {name} cannot be sent to the host: {what} cannot be pickled "
        f"({type_name_of(error)}: {_cut(_text(error), 300)}). Return plain data: numbers, text, "
        "arrays, and lists or dicts of them."
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
        return _exact(str(error))
    except BaseException as second:
        return f"<its text cannot be had: {type_name_of(second)}>"


def _exact(text: str) -> str:
    """The same text without methods of its own, which a subclass of str may have."""
    return "".join((text,))


def _format(error: BaseException) -> str:
    """The traceback from where user code begins."""
    try:
        trace = _user_part(error.__traceback__)
        told = traceback.TracebackException(type(error), error, trace, compact=True)
        # Each piece is cut before the next is made: a message of a gigabyte is copied once.
        return "".join(_cut(piece, _LONGEST_TRACEBACK) for piece in told.format())
    except BaseException as second:
        names = type_name_of(error), type_name_of(second)
        return "{} (its traceback cannot be formatted: {})\n".format(*names)


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace or first


def _shorten_chain(error: BaseException) -> None:
    """Cut a long chain of causes: formatting thousands of them takes minutes and much memory."""
    seen: set[int] = set()
    item: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if item is None or id(item) in seen:
            return
        seen.add(id(item))
        last, item = item, _CAUSE.__get__(item) or _CONTEXT.__get__(item)
    if item is not None:
        _CONTEXT.__set__(last, None)
        _CAUSE.__set__(last, _Shortened("… and more before that, left out"))


class _Shortened(Exception):
    """Stands for the rest of a chain of exceptions."""


def _drop_tracebacks(error: BaseException) -> None:
    """Let go of the frames, whose local variables hold arrays and thereby segments."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        item = todo.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        _TRACEBACK.__set__(item, None)
        todo += [_CAUSE.__get__(item), _CONTEXT.__get__(item)]
        if isinstance(item, _GROUPS):
            todo += item.exceptions


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
    except BaseException:
        return False
    return True


def _short(key: Any) -> str:
    try:
        return _cut(_exact(repr(key)), 60)
    except BaseException:
        return f"<{type_name_of(key)}>"


def _cut(text: str, limit: int) -> str:
    """The text with its middle left out if it is longer than `limit` bytes in UTF-8."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))
    if size <= limit:
        return text
    # A character has up to 4 bytes, up to 12 when it is a lone surrogate that is spelt out.
    room = limit if text.isascii() else limit // 4
    half = max(room // 2 - 20, 1)
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
