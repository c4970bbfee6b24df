"""TH001, TH004: what a parallel process takes from around it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..arrays import LARGE, array_bytes, is_array
from ..bound import bound
from ..findings import Finding
from ..module import Module, Process
from ..scopes import Function
from ..source import begin

__all__ = ["check"]


def check(module: Module) -> Iterator[Finding]:
    """Locks, files and the like, and large arrays, from a global or a closure."""
    told: set[tuple[ast.AST, str]] = set()
    for process in module.parallel:
        for function in _travelling(module, process.node):
            for name in _taken(module, function):
                if (function, name.id) in told:
                    continue
                finding = _look(module, process, function, name)
                if finding is not None:
                    told.add((function, name.id))
                    yield finding


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
    kind = bound(module, name)
    if kind is not None:
        return module.finding(
            "TH001",
            name,
            f"parallel {where} uses {name.id!r}, {kind.what} of the process that made it, which "
            f"cannot be sent to a worker. {kind.advice}",
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
