"""TH002, TH006: what is sent to a worker with a call."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..arrays import LARGE, array_bytes, is_array
from ..bound import bound, parts
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
        if isinstance(node, ast.Call):
            for where, value in _stored(module, node):
                yield from _bound(module, value, where)


def _stored(module: Module, node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """What a call puts into the state."""
    func = node.func
    if module.opens_engine(node):
        where, index, names = "the engine's context", 0, {"context"}
    elif module.called(node) in ("theus.StateUpdate", "theus.structures.StateUpdate"):
        where, index, names = "a StateUpdate", 1, {"data", "val"}
    elif (
        isinstance(func, ast.Attribute)
        and func.attr == "compare_and_swap"
        and module.is_engine(func.value)
    ):
        where, index, names = "data", 1, {"data"}
    else:
        return
    for value in node.args[index : index + 1]:
        yield where, value
    for keyword in node.keywords:
        if keyword.arg in names:
            yield where, keyword.value


def _argument(module: Module, call: Call, place: str, value: ast.expr) -> Iterator[Finding]:
    if call.way == "map":
        value, repeated = _repeated(module, value)
        if not repeated:  # it is asked for its items here, and those are sent
            for item in value.elts if isinstance(value, (ast.List, ast.Tuple)) else ():
                yield from _bound(module, item, f"an item of {call.way}()")
            return
    name = call.process.name if call.process is not None else "a process"
    yield from _bound(module, value, f"{place} of {call.way}({name})")
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


def _bound(module: Module, value: ast.expr, where: str) -> Iterator[Finding]:
    for part, path in parts(module, value):
        kind = bound(module, part)
        if kind is not None:
            written_here = part is value or value in module.ancestors(part)
            yield module.finding(
                "TH002",
                part if written_here else value,
                f"{where}{path} is {kind.what}, which cannot leave this process. {kind.advice}",
            )
