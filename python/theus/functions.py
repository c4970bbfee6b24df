"""Functions as workers get them.

A function travels once per worker, as a *record*: ``(module, qualname, code_hash, by_value,
passes_ctx)``. A worker that can import ``module.qualname`` and finds the same code there uses that;
any other unpickles `by_value`. A record whose module is None has `by_value` only: a function of
``__main__``, a lambda, a notebook cell, a partial, a builtin.

`FunctionCache` knows what was sent already. A function counts as changed when its code, defaults
or closure did, or when a global that it uses was bound to something else; what happens *inside* a
captured object is not tracked.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from . import stateless
from ._core import Handle, core
from .allocation import with_room
from .arrays import ShmArray, collecting
from .code_hash import PLAIN, code_hash
from .context_parameter import passes_ctx
from .errors import LargeArgumentWarning
from .host_arrays import ArrayHandle, handles_under
from .module_state import warn_of_module_state, warn_of_writes
from .stateless import StrictPickler, used_globals

__all__ = [
    "FunctionCache",
    "FunctionHandle",
    "record_of",
    "require_sendable",
]

# An importable function travels by value as well, in case a worker has another version of its
# module. That is worth little, so it is done only as long as it costs little.
SPARE_COPY_LIMIT = 1 << 20
_MOST_SPARE_ARRAYS = 64
LARGE = 1 << 20
_MAIN_MODULES = ("__main__", "__mp_main__")


def record_of(fn: Callable[..., Any], *, by_value_only: bool = False) -> tuple[Any, ...]:
    """The record of a function.

    Args:
        fn: any callable.
        by_value_only: do not let workers import it, although they could: a global that it uses
            was changed in this process.

    Raises:
        StatelessnessError: it holds something that cannot leave this process.
    """
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    ctx = passes_ctx(fn)
    if isinstance(fn, types.FunctionType):
        warn_of_writes(fn)
    if not by_value_only and isinstance(fn, types.FunctionType) and is_importable(fn):
        warn_of_module_state(fn)
        try:
            with _module_by_value(fn):
                spare = _dump(fn, SPARE_COPY_LIMIT)
        except Exception:  # not picklable, or too large: importing it is the way
            spare = None
        return (fn.__module__, name, code_hash(fn), spare, ctx)
    try:
        with _module_by_value(fn) if by_value_only else contextlib.nullcontext():
            by_value = _dump(fn, None)
    except Exception as failure:
        raise stateless.explain(fn, name, failure) from failure
    return (None, name, code_hash(fn), by_value, ctx)


def require_sendable(fn: Callable[..., Any]) -> None:
    """Find out before it is called whether workers can have a function, without copying anything.

    Raises:
        StatelessnessError: it holds something that cannot leave this process.
    """
    if isinstance(fn, types.FunctionType) and is_importable(fn):
        warn_of_module_state(fn)
        return
    try:
        StrictPickler(stateless.Sink(), protocol=5, buffer_callback=lambda _: None).dump(fn)
    except RecursionError:
        return  # too deep to say
    except Exception as failure:
        name = getattr(fn, "__qualname__", type(fn).__qualname__)
        raise stateless.explain(fn, name, failure) from failure


def is_importable(fn: types.FunctionType) -> bool:
    """Whether another process could import a function under its module and name."""
    if fn.__module__ in _MAIN_MODULES or "<" in fn.__qualname__:
        return False
    module = sys.modules.get(fn.__module__ or "")
    if module is None or getattr(module, "__spec__", None) is None:
        return False
    found: Any = module
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is fn


_registry_lock = threading.RLock()


@contextlib.contextmanager
def _module_by_value(fn: Callable[..., Any]) -> Iterator[None]:
    """Within it, cloudpickle takes all that belongs to the module of `fn` by value.

    A function alone would do its work with the helpers and globals that a worker imports, and the
    copy is for when those are others.
    """
    module = sys.modules.get(fn.__module__)
    with _registry_lock:
        if module is None or module.__name__ in cloudpickle.list_registry_pickle_by_value():
            yield
            return
        cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            cloudpickle.unregister_pickle_by_value(module)


class _TooLarge(Exception):
    pass


def _dump(fn: Callable[..., Any], limit: int | None) -> Any:
    """A pickle of a callable; with its large buffers beside it, so that they are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    large = 0

    def beside(buffer: pickle.PickleBuffer) -> bool:
        nonlocal large
        try:
            size = buffer.raw().nbytes
        except BufferError:  # not contiguous
            return True
        large += size
        if limit is not None and large > limit:
            raise _TooLarge
        if size < 1 << 12:
            return True
        buffers.append(buffer)
        return False

    file = _LimitedFile(limit)
    StrictPickler(file, protocol=5, buffer_callback=beside).dump(fn)
    if large >= LARGE:
        _warn_of_large_capture(fn, large)
    return (file.getvalue(), buffers) if buffers else file.getvalue()


class _LimitedFile(io.BytesIO):
    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        if self._limit is not None and self.tell() + len(data) > self._limit:
            raise _TooLarge
        return super().write(data)


def _warn_of_large_capture(fn: Any, size: int) -> None:
    warnings.warn(
        f"{getattr(fn, '__qualname__', fn)} captures arrays of {size:,} bytes, which are copied "
        "for the workers. engine.heavy.put(key, array) shares them without a copy; read them as "
        "ctx.heavy[key].",
        LargeArgumentWarning,
        stacklevel=stateless.outside(),
    )


class FunctionHandle(Handle):
    """Owns a function of the library.

    Attributes:
        arrays: the shared arrays that it captures. Its record says where they lie, so they are kept
            there as long as it is; and each call brings them along, for a worker that has none yet.
    """

    __slots__ = ("arrays",)

    def __init__(self, value: int, arrays: list[ArrayHandle]) -> None:
        super().__init__(value)
        self.arrays = arrays


class _Defined:
    """A function that was made known to the library, and what it looked like then."""

    __slots__ = ("code", "defaults", "handle", "kwdefaults", "watched")

    def __init__(self, fn: Callable[..., Any], handle: FunctionHandle) -> None:
        self.handle = handle
        self.code = getattr(fn, "__code__", None)
        self.defaults = getattr(fn, "__defaults__", None)
        self.kwdefaults = getattr(fn, "__kwdefaults__", None)
        self.watched = _watch(fn)

    def looks_the_same(self, fn: Callable[..., Any]) -> bool:
        if not self.same_code(fn):
            return False
        for entry in self.watched:  # noqa: SIM110  # all() takes as long as the rest
            if not _unchanged(*entry):
                return False
        return True

    def same_code(self, fn: Callable[..., Any]) -> bool:
        return (
            getattr(fn, "__code__", None) is self.code
            and getattr(fn, "__defaults__", None) is self.defaults
            and getattr(fn, "__kwdefaults__", None) == self.kwdefaults
        )


_ABSENT = object()


_Watched = tuple["weakref.ref[types.FunctionType]", str | int, Any]


def _watch(fn: Callable[..., Any]) -> list[_Watched]:
    """(function, name of a global or number of a cell, value) of all that its meaning depends on.

    Functions are held weakly, and not their cells or globals either: through those a recursive
    function would keep itself alive.
    """
    entries: list[_Watched] = []
    seen: set[int] = set()
    todo: list[Any] = [fn]
    while todo:
        function = todo.pop()
        if not isinstance(function, types.FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        reference = weakref.ref(function)
        values: list[Any] = []
        for number, cell in enumerate(function.__closure__ or ()):
            value = _content(cell)
            values.append(value)
            entries.append((reference, number, _hold(value)))
        for name, value in used_globals(function).items():
            values.append(value)
            entries.append((reference, name, _hold(value)))
        # Helpers of the same module travel along by value, so their meaning counts as well.
        todo += [v for v in values if getattr(v, "__module__", None) == fn.__module__]
    return entries


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # assigned later
        return _ABSENT


def _hold(value: Any) -> Any:
    return weakref.ref(value) if isinstance(value, types.FunctionType) else value


def _unchanged(reference: weakref.ref[types.FunctionType], name: str | int, before: Any) -> bool:
    function = reference()
    if function is None:  # a helper that was replaced
        return False
    if isinstance(name, int):
        now = _content((function.__closure__ or ())[name])
    else:
        now = function.__globals__.get(name, _ABSENT)
    if now is before:
        return True
    if isinstance(before, weakref.ref):
        return now is before()
    return type(now) in PLAIN and type(now) is type(before) and bool(now == before)


class FunctionCache:
    """The functions that one engine has sent, by identity; an entry dies with its function."""

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._known: weakref.WeakKeyDictionary[Any, _Defined] = weakref.WeakKeyDictionary()

    def handle(self, fn: Callable[..., Any]) -> FunctionHandle:
        """The library's handle for a function, defined anew when it has changed.

        Raises:
            StatelessnessError: it holds something that cannot leave this process.
            ValueError: it captures a shared array of another engine.
        """
        if not isinstance(fn, (types.FunctionType, types.BuiltinFunctionType, type)):
            # A partial, a bound method, an object: whatever it holds may have changed.
            return self._define(fn, by_value_only=False)
        known = self._known.get(fn)
        if known is not None and known.looks_the_same(fn):
            return known.handle
        # The same code that means something else now: workers must not import it, they would
        # read the module's globals as they were.
        changed = known is not None and known.same_code(fn)
        handle = self._define(fn, by_value_only=changed)
        with self._lock:
            self._known[fn] = _Defined(fn, handle)
        return handle

    def _define(self, fn: Callable[..., Any], *, by_value_only: bool) -> FunctionHandle:
        buffers: list[pickle.PickleBuffer] = []
        with collecting() as captured:
            record = record_of(fn, by_value_only=by_value_only)
        stream = pickle.dumps(record, protocol=5, buffer_callback=buffers.append)
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        arrays = self._own(captured, name, record)
        name, engine = name.replace("\0", ""), self._engine
        # Large ones are copied into the heap.
        value = with_room(engine, 0, lambda: core().define(engine, name, [stream, *buffers]))
        return FunctionHandle(value, arrays)

    def _own(
        self, captured: list[ShmArray], name: str, record: tuple[Any, ...]
    ) -> list[ArrayHandle]:
        importable, by_value = record[0] is not None, record[3]
        arrays = handles_under(captured) if by_value is not None else []
        if importable and len(arrays) > _MOST_SPARE_ARRAYS:
            return []
        own = [handle for handle in arrays if handle.engine == self._engine]
        if len(own) < len(arrays) and not importable:  # who imports it makes arrays of his own
            raise ValueError(
                f"{name} captures a shared array of another engine, whose workers alone can read "
                "it. Put it into this one (engine.heavy.put), or capture a copy (np.array)."
            )
        return own

    def clear(self) -> None:
        """Forget all, when the engine closes."""
        with self._lock:
            self._known = weakref.WeakKeyDictionary()
