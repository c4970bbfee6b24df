"""Expressions of a process that stand for a part of its context."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple, TypeGuard

from .module import Module, Process

__all__ = ["Access", "chain", "domain_path", "heavy_access", "is_part", "is_view_of_heavy", "nodes"]

_METHODS = {"get", "keys", "items", "values", "cow", "alloc"}


class Access(NamedTuple):
    """A read of one array of ``ctx.heavy``; the key is None where it is no literal."""

    node: ast.expr
    key: str | None
    how: str


def nodes(process: Process) -> Iterator[ast.AST]:
    """All nodes of a process's body, also of functions in it."""
    for statement in process.node.body:
        yield from ast.walk(statement)


def is_part(module: Module, process: Process, expression: ast.AST, part: str) -> bool:
    """Whether an expression is ``ctx.<part>`` of the process."""
    origins = module.origins(expression)
    return bool(origins) and all(
        isinstance(origin, ast.Attribute)
        and origin.attr == part
        and process.ctx is not None
        and module.origins(origin.value) == [process.ctx]
        for origin in origins
    )


def heavy_access(module: Module, process: Process, node: ast.AST) -> Access | None:
    """What ``ctx.heavy[key]``, ``.get(key)``, ``.cow(key)`` or ``.key`` reads."""
    if isinstance(node, ast.Subscript) and is_part(module, process, node.value, "heavy"):
        return Access(node, _text(module, node.slice), "item")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        method = node.func.attr
        if method in ("get", "cow") and is_part(module, process, node.func.value, "heavy"):
            return Access(node, _text(module, node.args[0]), method)
    if (
        isinstance(node, ast.Attribute)
        and node.attr not in _METHODS
        and not node.attr.startswith("_")
        and is_part(module, process, node.value, "heavy")
    ):
        return Access(node, node.attr, "attribute")
    return None


def is_view_of_heavy(module: Module, process: Process, expression: ast.AST) -> Access | None:
    """The array of ``ctx.heavy`` whose memory an expression surely shows, read-only."""
    found: Access | None = None
    for origin in module.origins(expression):
        access = heavy_access(module, process, origin)
        if access is not None and access.how == "cow":
            return None
        if access is None and _is_view(origin):
            access = is_view_of_heavy(module, process, origin.value)
        if access is None:
            return None
        found = access
    return found


def _is_view(node: ast.AST) -> TypeGuard[ast.Subscript | ast.Attribute]:
    """Whether a node is ``array.T``, or ``array[…]`` with slices and, beside them, numbers."""
    if isinstance(node, ast.Attribute):
        return node.attr == "T"
    if not isinstance(node, ast.Subscript):
        return False
    index = node.slice
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    number = all(isinstance(p, (ast.Slice, ast.Constant)) for p in parts)
    return number and any(isinstance(p, ast.Slice) for p in parts)


def chain(module: Module, expression: ast.AST) -> tuple[ast.AST, list[str | None]]:
    """What an expression like ``a.b["c"][0]`` begins with, and the names that follow it.

    An index that is no text is None.
    """
    names: list[str | None] = []
    while isinstance(expression, (ast.Attribute, ast.Subscript)):
        if isinstance(expression, ast.Attribute):
            names.append(expression.attr)
        else:
            names.append(_text(module, expression.slice))
        expression = expression.value
    return expression, names[::-1]


def domain_path(module: Module, process: Process, node: ast.AST) -> list[str | None] | None:
    """The path of the state that ``ctx.domain.a["b"]`` means, ``domain`` first."""
    base, names = chain(module, node)
    if process.ctx is not None and module.origins(base) == [process.ctx]:
        return names if names[:1] == ["domain"] else None
    origins = module.origins(base)
    if len(origins) != 1 or origins[0] is base:
        return None
    below = domain_path(module, process, origins[0])
    return None if below is None else [*below, *names]


def _text(module: Module, expression: ast.expr) -> str | None:
    value = module.constant(expression)
    return value if isinstance(value, str) else None
