"""Which function a task means, and how it is called."""

from __future__ import annotations

import importlib
import inspect
import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any

from ..arrays import Resolver, resolving
from ..bounds import Bounds
from ..code_hash import code_hash
from ..context_parameter import passes_ctx
from ..contracts import contract_of
from ..errors import TheusError
from ..payload import decode
from . import wire
from .link import FUNCTION, Link
from .received import Received
from .signals import uninterrupted

_MAIN_MODULES = ("__main__", "__mp_main__")


class Callee:
    """A function that is ready to be called.

    Attributes:
        name: ``module.qualname``, for messages.
        passes_ctx: whether the context is its first argument.
        bounds: what it may read of the state; None: everything.
    """

    __slots__ = ("_accepts_all", "_fn", "_keywords", "_positional", "bounds", "name", "passes_ctx")

    def __init__(self, fn: Callable[..., Any], name: str, passes_ctx: bool) -> None:
        self._fn = fn
        self.name = name
        self.passes_ctx = passes_ctx
        self._positional: list[str] = []
        self._keywords: set[str] = set()
        self._accepts_all = True
        bounds = Bounds(name.rpartition(".")[2], contract_of(fn))
        self.bounds = None if bounds.read_everything else bounds
        if passes_ctx:
            self._read_signature()

    def _read_signature(self) -> None:
        try:
            parameters = list(inspect.signature(self._fn).parameters.values())
        except (TypeError, ValueError):  # some builtins have none; they get all there is
            return
        kinds = inspect.Parameter
        by_name = (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
        by_place = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        self._accepts_all = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
        if parameters and parameters[0].kind in by_place:
            parameters = parameters[1:]  # the context itself
        self._positional = [p.name for p in parameters if p.kind in by_place]
        self._keywords = {p.name for p in parameters if p.kind in by_name}

    def inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """What ctx.input shows: all keyword arguments, and positional ones by their names."""
        if not args:
            return dict(kwargs)
        return {**dict(zip(self._positional, args, strict=False)), **kwargs}

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], ctx: Any) -> Any:
        """Call it; an async function is run to its end.

        With a context, keyword arguments that are no parameters are found in ctx.input only.
        """
        if self.passes_ctx:
            args = (ctx, *args)
            if not self._accepts_all:
                kwargs = {k: v for k, v in kwargs.items() if k in self._keywords}
        result = self._fn(*args, **kwargs)
        return result if type(result) is not types.CoroutineType else _to_the_end(result)

    def call_each(
        self, next_arguments: Callable[[], tuple[Any, ...]], times: int, values: list[Any]
    ) -> None:
        """Call it so often without a context, and add to `values` what each call gives.

        It stops at the first that raises. A loop and nothing else: an item of a map may take less
        than a call of ours would.
        """
        fn, add = self._fn, values.append
        for _ in range(times):
            result = fn(*next_arguments())
            add(result if type(result) is not types.CoroutineType else _to_the_end(result))


def _to_the_end(result: Any) -> Any:
    """The outcome of a coroutine."""
    import asyncio  # takes 50 ms, and few functions need it

    return asyncio.run(result)


class FunctionCache:
    """The functions that this worker was sent, by their number."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[int, Callee] = {}
        self._targets: dict[str, Callee] = {}

    def find(self, task: int, function: int, target: str, resolver: Resolver) -> Callee:
        """The function of a task: by number, or where that is 0 by "package.module:name".

        Args:
            task: the task's number.
            function: the function's, or 0.
            target: its name, where it has no number.
            resolver: finds the shared arrays that the function captures.

        Raises:
            Exception: it cannot be imported or unpickled here; the text says why.
        """
        if self._link.forgotten:
            for forgotten in self._link.forgotten_functions():
                self._known.pop(forgotten, None)
        known = self._known.get(function) if function else self._targets.get(target)
        if known is not None:
            return known
        with resolving(resolver):
            if not function:
                return self._by_target(target)
            known = self._known[function] = _load(self._record(task, function))
        return known

    def _by_target(self, target: str) -> Callee:
        module, colon, qualname = target.partition(":")
        if not (module and colon and qualname):
            raise ValueError(f"the target {target!r} is not of the form 'package.module:name'")
        fn = _import(module, qualname)
        found = self._targets[target] = Callee(fn, f"{module}.{qualname}", passes_ctx(fn))
        return found

    def _record(self, task: int, function: int) -> tuple[Any, ...]:
        received = self._link.function(function)
        if received is None:
            received = self._fetch(task, function)
        spans = received.take(self._link, task)
        if received.codec != wire.CODEC_PICKLE or not spans:
            raise TheusError(f"function {function} came without its code")
        record: tuple[Any, ...] = decode(spans)
        return record

    @uninterrupted
    def _fetch(self, task: int, function: int) -> Received:
        with self._link.fetch(task, FUNCTION, argument=function) as answer:
            fields = wire.Reader(answer.payload)
            status = fields.u8()
            if status:
                raise TheusError(f"the host did not send the function's code: {fields.text()}")
            return Received.of(fields.value(), answer, self._link.segments)


def _load(record: tuple[Any, ...]) -> Callee:
    module, qualname, expected, by_value, passes_ctx = record
    name = f"{module}.{qualname}" if module else str(qualname)
    reasons = []
    if module and module not in _MAIN_MODULES:
        try:
            fn = _import(module, qualname)
        except (Exception, SystemExit) as error:  # a module may well call sys.exit()
            reasons.append(f"importing it failed ({type(error).__name__}: {error})")
        else:
            if code_hash(fn) == expected:
                return Callee(fn, name, passes_ctx)
            reasons.append(
                f"{module} as imported here has other code under that name than the caller has"
            )
    if by_value is None:
        reasons.append("the caller could not pickle its own copy")
    else:
        try:
            return Callee(load_by_value(by_value), name, passes_ctx)
        except Exception as error:
            reasons.append(f"its pickle cannot be loaded ({type(error).__name__}: {error})")
    raise ImportError(
        f"{name} cannot be had in this worker: {'; and '.join(reasons)}. Workers see the sys.path, "
        "working directory and environment that the caller had when its engine was opened.",
        name=module,
    )


def load_by_value(by_value: Any) -> Callable[..., Any]:
    """The callable of a record's `by_value`: a pickle, or a pickle and its buffers."""
    if isinstance(by_value, tuple):
        stream, buffers = by_value
        fn = pickle.loads(stream, buffers=buffers)
    else:
        fn = pickle.loads(by_value)
    return fn  # type: ignore[no-any-return]


def _import(module: str, qualname: str) -> Callable[..., Any]:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if isinstance(found, types.ModuleType) or not callable(found):
        raise TypeError(f"{module}.{qualname} is a {type(found).__name__}, not a function")
    fn: Callable[..., Any] = found
    return fn
