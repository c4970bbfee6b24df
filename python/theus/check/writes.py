"""Places that write to an array."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .module import Module

__all__ = ["Write", "writes"]

_IN_PLACE = {"sort", "fill", "put", "itemset", "partition", "resize", "setfield", "setflags"}
_FIRST = {
    *("numpy.copyto", "numpy.put", "numpy.place", "numpy.putmask", "numpy.fill_diagonal"),
    *("numpy.random.shuffle", "numpy.put_along_axis"),
}


class Write(NamedTuple):
    """A write: the node that does it, the expression of the array, and how it reads."""

    node: ast.AST
    array: ast.expr
    how: str


def writes(module: Module, nodes: Iterable[ast.AST]) -> Iterator[Write]:
    """Everything among some nodes that would write to an array."""
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _target(node, target)
        elif isinstance(node, ast.AugAssign):
            yield Write(node, node.target, "… =")  # in place, where the value is an array
            yield from _target(node, node.target)
        elif isinstance(node, ast.Call):
            yield from _call(module, node)


def _target(node: ast.AST, target: ast.expr) -> Iterator[Write]:
    if isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from _target(node, element)
    elif isinstance(target, ast.Subscript):
        yield Write(node, target.value, "[…] =")
    elif (
        isinstance(target, ast.Attribute)
        and target.attr == "writeable"
        and isinstance(target.value, ast.Attribute)
        and target.value.attr == "flags"
    ):
        yield Write(node, target.value.value, ".flags.writeable =")


def _call(module: Module, node: ast.Call) -> Iterator[Write]:
    for keyword in node.keywords:
        if keyword.arg == "out":
            outs = keyword.value.elts if isinstance(keyword.value, ast.Tuple) else [keyword.value]
            for out in outs:
                yield Write(node, out, "out=")
    name = module.called(node)
    if name in _FIRST and node.args:
        yield Write(node, node.args[0], f"{name.replace('numpy', 'np', 1)}()")
    func = node.func
    if not isinstance(func, ast.Attribute) or name:
        return
    if func.attr == "shuffle" and node.args:
        yield Write(node, node.args[0], ".shuffle()")
    elif func.attr in _IN_PLACE and (func.attr != "setflags" or _makes_writable(node)):
        yield Write(node, func.value, f".{func.attr}()")


def _makes_writable(node: ast.Call) -> bool:
    given = [k.value for k in node.keywords if k.arg == "write"] or node.args[:1]
    return any(isinstance(value, ast.Constant) and value.value for value in given)
