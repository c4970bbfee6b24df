"""Which function a name means.

A name is looked up among the functions registered with an engine, then among all functions that
this process decorated with `process`. The second list holds them weakly, by module: a cell that
is run again, or a module that is reloaded, replaces its own entry and no other.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from .errors import UnknownProcess

# Keywords of execute() and run() themselves, which therefore cannot reach a process.
ENGINE_OPTIONS = ("timeout", "retries", "cas_retries")

_lock = threading.RLock()
_decorated: dict[str, dict[str, weakref.ref[Any]]] = {}


def note_decorated(fn: Callable[..., Any]) -> None:
    """Remember that `fn` was decorated, without keeping it alive."""
    name = getattr(fn, "__name__", None)
    module = getattr(fn, "__module__", None) or "?"
    if not name:
        return
    try:
        reference = weakref.ref(fn)
    except TypeError:
        return
    with _lock:
        _decorated.setdefault(name, {})[module] = reference


def decorated(name: str) -> dict[str, Callable[..., Any]]:
    """The living decorated functions of that name, by module."""
    with _lock:
        references = dict(_decorated.get(name, {}))
    found = ((module, reference()) for module, reference in references.items())
    return {module: fn for module, fn in found if fn is not None}


def decorated_names() -> list[str]:
    """Names of all living decorated functions."""
    with _lock:
        snapshot = {name: list(refs.values()) for name, refs in _decorated.items()}
    return sorted(n for n, refs in snapshot.items() if any(r() is not None for r in refs))


class Registry:
    """The processes of one engine, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Callable[..., Any]] = {}
        self._collisions: set[str] = set()

    def add(self, fn: Callable[..., Any], name: str | None = None) -> None:
        """Register `fn`; the newest one of a name wins, and a different earlier one is counted.

        Raises:
            TypeError: `fn` is not callable, has no name, or one of its parameters has the name of
                an option of execute().
        """
        if not callable(fn):
            raise TypeError(f"register() takes a function, not {type(fn).__qualname__}")
        name = name or getattr(fn, "__name__", None)
        if not name:
            raise TypeError(f"{fn!r} has no __name__; register(fn, name=…) gives it one")
        refuse_shadowed_options(fn, name)
        known = self._by_name.get(name)
        if known is not None and _identity(known) != _identity(fn):
            self._collisions.add(name)
        self._by_name[name] = fn

    @property
    def collisions(self) -> list[str]:
        """Names under which different functions were registered."""
        return sorted(self._collisions)

    def names(self) -> list[str]:
        return sorted(self._by_name)

    def find(self, name: str) -> Callable[..., Any]:
        """The function of that name.

        Raises:
            UnknownProcess: there is none, or several modules have one.
        """
        fn = self._by_name.get(name)
        if fn is not None:
            # In __main__ the newest definition counts: a cell may have been run again.
            newest = decorated(name).get("__main__") if _is_main(fn) else None
            return newest if newest is not None else fn
        candidates = decorated(name)
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        if candidates:
            where = ", ".join(sorted(f"{module}.{name}" for module in candidates))
            raise UnknownProcess(
                f"the name {name!r} is ambiguous: {where}. Register the one that is meant with "
                "engine.register(fn), or pass the function itself.",
                name=name,
                known=sorted(f"{module}.{name}" for module in candidates),
            )
        known = sorted({*self._by_name, *decorated_names()})
        raise UnknownProcess(_unknown(name, known), name=name, known=known)


def refuse_shadowed_options(fn: Callable[..., Any], name: str) -> None:
    """Refuse a process whose parameter could never be given.

    Raises:
        TypeError: a parameter is called like an option of execute().
    """
    shadowed = [p for p in _parameters(fn) if p in ENGINE_OPTIONS]
    if shadowed:
        listed = ", ".join(repr(p) for p in shadowed)
        raise TypeError(
            f"process {name!r} has a parameter {listed}, which is an option of engine.execute() "
            f"and would never reach it. Rename the parameter; options can also be set apart: "
            f"engine.options({shadowed[0]}=…).execute({name}, …)."
        )


def _parameters(fn: Callable[..., Any]) -> list[str]:
    import inspect  # slow to import, and decorating does not need it

    try:
        return list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):  # builtins without a signature
        return []


def _identity(fn: Callable[..., Any]) -> tuple[Any, Any]:
    return getattr(fn, "__module__", None), getattr(fn, "__qualname__", id(fn))


def _is_main(fn: Callable[..., Any]) -> bool:
    return getattr(fn, "__module__", None) == "__main__"


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return (
            f"no process is called {name!r}: none is known at all. Decorate it with @process and "
            "import its module, or call engine.register(fn)."
        )
    import difflib

    near = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return (
        f"no process is called {name!r}.{hint} Known: {shown}. Import the module that decorates "
        "it with @process, or call engine.register(fn)."
    )
