"""TH001, TH004: what a parallel process takes from around it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..arrays import LARGE, array_bytes, is_array
from ..bound import bound, parts
from ..findings import Finding
from ..module import Module, Process
from ..scopes import Function
from ..source import begin

__all__ = ["check"]


def check(module: Module) -> Iterator[Finding]:
    """Locks, files and the like, and large arrays, from a global or a closure."""
    told: set[tuple[ast.AST, str]] = set()
    for process in module.parallel:
        yield from _defaults(module, process)
        for function in _travelling(module, process.node):
            for name in _taken(module, function):
                if (function, name.id) in told:
                    continue
                finding = _look(module, process, function, name)
                if finding is not None:
                    told.add((function, name.id))
                    yield finding


def _defaults(module: Module, process: Process) -> Iterator[Finding]:
    """Defaults of parameters travel along, too."""
    a = process.node.args
    for value in (*a.defaults, *a.kw_defaults):
        for part, _ in () if value is None else parts(module, value):
            kind = bound(module, part)
            if kind is not None:
                yield module.finding(
                    "TH001",
                    part,
                    f"a default of parallel process {process.name!r} is {kind.what}, which cannot "
                    f"be sent to a worker. {kind.advice}",
                )


def _travelling(module: Module, function: Function) -> list[Function]:
    """A process and the plain functions of the module that it calls: they travel with it."""
    found: list[Function] = []
    todo: list[Function] = [function]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found.append(current)
        for node in ast.walk(current):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                for origin in module.origins(node.func):
                    if isinstance(origin, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        todo.append(origin)
    return found


def _taken(module: Module, function: Function) -> Iterator[ast.Name]:
    """Uses of names that are bound outside of a function, in the order of the text."""
    inside = set(ast.walk(function))
    names = [
        node
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    ]
    for name in sorted(names, key=begin):
        scope = module.find(name.id, name)
        if scope is not None and scope.node not in inside:
            yield name


def _look(module: Module, process: Process, function: Function, name: ast.Name) -> Finding | None:
    where = f"process {process.name!r}"
    if function is not process.node:
        where += f", through {function.name}(),"
    for part, path in parts(module, name):
        kind = bound(module, part)
        if kind is not None:
            return module.finding(
                "TH001",
                name,
                f"parallel {where} uses {name.id + path!r}, {kind.what} of the process that made "
                f"it, which cannot be sent to a worker. {kind.advice}",
            )
    if is_array(module, name):
        size = array_bytes(module, name)
        if size is not None and size >= LARGE:
            return module.finding(
                "TH004",
                name,
                f"parallel {where} captures {name.id!r}, an array of {size >> 20} MiB, which is "
                f"copied along with the function. Publish it, engine.heavy.put({name.id!r}, "
                f"{name.id}), and read ctx.heavy[{name.id!r}].",
            )
    return None
