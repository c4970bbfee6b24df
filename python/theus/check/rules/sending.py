"""TH002, TH006: what is sent to a worker with a call."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..arrays import LARGE, array_bytes, is_array
from ..bound import bound
from ..findings import Finding
from ..mends import array_to_heavy
from ..module import Call, Module

__all__ = ["check"]


def check(module: Module) -> Iterator[Finding]:
    """The arguments of calls, and the context of engines."""
    for call in module.calls:
        if call.parallel:
            for place, value in call.arguments():
                yield from _argument(module, call, place, value)
    for node in module.nodes:
        if isinstance(node, ast.Call) and module.opens_engine(node):
            given = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "context")]
            for value in given:
                yield from _context(module, value)


def _argument(module: Module, call: Call, place: str, value: ast.expr) -> Iterator[Finding]:
    if call.way == "map":
        value, repeated = _repeated(module, value)
        if not repeated:
            return  # it is asked for its items here, and those are sent
    name = call.process.name if call.process is not None else "a process"
    for part, path in _parts(module, value, place):
        kind = bound(module, part)
        if kind is not None:
            yield module.finding(
                "TH002",
                part,
                f"{path} of {call.way}({name}) is {kind.what}, which cannot be sent to a worker. "
                f"{kind.advice}",
            )
    if is_array(module, value):
        size = array_bytes(module, value)
        if size is None or size >= LARGE:
            key = value.id if isinstance(value, ast.Name) else "data"
            yield module.finding(
                "TH006",
                value,
                f"{place} of {call.way}({name}) is an array, which is copied for each call. "
                f"Publish it once, engine.heavy.put({key!r}, …), and read ctx.heavy[{key!r}] in "
                "the process.",
                fix=array_to_heavy(module, call, value),
            )


def _repeated(module: Module, value: ast.expr) -> tuple[ast.expr, bool]:
    """The item of ``[x] * n`` and of ``itertools.repeat(x)``, which is sent again and again."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        for side in (value.left, value.right):
            if isinstance(side, ast.List) and len(side.elts) == 1:
                return side.elts[0], True
    if isinstance(value, ast.Call) and module.called(value) == "itertools.repeat" and value.args:
        return value.args[0], True
    if (
        isinstance(value, (ast.ListComp, ast.GeneratorExp))
        and isinstance(value.elt, ast.Name)
        and (scope := module.find(value.elt.id, value.elt)) is not None
        and scope.node is not value
    ):
        return value.elt, True
    return value, False


def _context(module: Module, value: ast.expr) -> Iterator[Finding]:
    for part, path in _parts(module, value, "data"):
        kind = bound(module, part)
        if kind is not None:
            yield module.finding(
                "TH002",
                part,
                f"{path} of the engine's context is {kind.what}, which cannot leave this process. "
                f"{kind.advice}",
            )


def _parts(module: Module, value: ast.expr, path: str) -> Iterator[tuple[ast.expr, str]]:
    """A value and, where it is a display, what is in it."""
    yield value, path
    origins = module.origins(value)
    display = origins[0] if len(origins) == 1 else value
    if isinstance(display, (ast.List, ast.Tuple)):
        for index, item in enumerate(display.elts):
            yield from _parts(module, item, f"{path}[{index}]")
    elif isinstance(display, ast.Dict):
        for key, item in zip(display.keys, display.values, strict=True):
            text = repr(key.value) if isinstance(key, ast.Constant) else "…"
            yield from _parts(module, item, f"{path}[{text}]")
