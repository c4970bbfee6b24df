"""What a process uses of its module, and what it must not expect of that.

Each worker has imported the module for itself, or has a copy of the globals that the function uses.
So a connection there is another one, a large array is there once per worker, and what is written
stays in the worker that has written it. None of that is an error, and seldom what was meant: it is
a warning, which a comment on the line silences.

Example:
    >>> def load():
    ...     global table
    ...     table = read()  # theus: allow
"""

from __future__ import annotations

import dis
import linecache
import re
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

from . import stateless
from .errors import LargeArgumentWarning, StatelessnessWarning
from .stateless import used_globals

__all__ = ["warn_of_module_state", "warn_of_writes"]

LARGE = 1 << 20
_ALLOW = re.compile(r"#\s*theus:\s*allow\b")
_WRITES = ("STORE_GLOBAL", "DELETE_GLOBAL")
_READS = ("LOAD_GLOBAL", "LOAD_NAME")


def warn_of_module_state(fn: types.FunctionType) -> None:
    """Warn of globals of its module that are not in a worker what they are here."""
    for name, value in used_globals(fn).items():
        place = f"{fn.__qualname__} uses {fn.__module__}.{name}"
        if stateless.bound_to_process(value) is not None:
            _warn(
                fn,
                name,
                f"{place}, a {stateless.type_name(value)}: each worker imports {fn.__module__} and "
                "has one of its own, which is not the one of this process. Make it inside the "
                "function to say that this is meant, or write `# theus: allow` beside it.",
                StatelessnessWarning,
            )
        elif _private_bytes(value) >= LARGE:
            _warn(
                fn,
                name,
                f"{place}, an array of {value.nbytes:,} bytes, of which each worker that imports "
                f"{fn.__module__} has a copy. engine.heavy.put({name!r}, array) shares one without "
                f"a copy; read it as ctx.heavy[{name!r}].",
                LargeArgumentWarning,
            )


def warn_of_writes(fn: types.FunctionType) -> None:
    """Warn of globals that it assigns or deletes: nobody else will see that."""
    for name, line in _lines_of(fn.__code__, _WRITES).items():
        if not _allowed(fn.__code__, line):
            warnings.warn(
                f"{fn.__qualname__} writes the global {name} (line {min(line)}): each worker has "
                "one of its own, so that nobody else sees it, and the next task may run in another "
                "worker. Return the value, or name where it goes: @process(outputs=[…]). If it is "
                "meant as a cache of each worker, write `# theus: allow` beside it.",
                StatelessnessWarning,
                stacklevel=stateless.outside(),
            )


def _warn(fn: types.FunctionType, name: str, text: str, kind: type[Warning]) -> None:
    if not _allowed(fn.__code__, _lines_of(fn.__code__, _READS).get(name, set())):
        warnings.warn(text, kind, stacklevel=stateless.outside())


def _private_bytes(value: Any) -> int:
    """The size of a numpy array that is not shared; 0 for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray):
        return 0
    return 0 if getattr(value, "_memory", None) is not None else int(value.nbytes)


def _lines_of(code: types.CodeType, operations: tuple[str, ...]) -> dict[str, set[int]]:
    """By name of a global, the lines on which these are done to it, nested functions included."""
    found: dict[str, set[int]] = {}
    for name, line in _uses(code, operations):
        found.setdefault(name, set()).add(line)
    return found


def _uses(code: types.CodeType, operations: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        # Until 3.12 starts_line is the number, from then on line_number is.
        line = getattr(instruction, "line_number", None) or instruction.starts_line or line
        if instruction.opname in operations:
            yield str(instruction.argval), int(line)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _uses(const, operations)


def _allowed(code: types.CodeType, lines: set[int]) -> bool:
    """Whether a comment on one of these lines says so."""
    return any(_ALLOW.search(linecache.getline(code.co_filename, line)) for line in lines)
