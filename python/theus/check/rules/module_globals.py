"""TH003: what a parallel process writes and nobody else will see."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..context import nodes
from ..findings import Finding
from ..module import Module, Process

__all__ = ["check"]

_GROWING = {
    *("append", "extend", "insert", "add", "update", "discard", "remove", "clear", "appendleft"),
    *("setdefault", "pop", "popleft", "popitem"),
}
_MADE_BY = {
    *("builtins.list", "builtins.dict", "builtins.set", "collections.defaultdict"),
    *("collections.Counter", "collections.OrderedDict", "collections.deque"),
}
_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def check(module: Module) -> Iterator[Finding]:
    """Assignments to globals, and changes of a module's lists and dicts.

    A global that the process also reads is taken for a cache of the worker's own, which is fine.
    """
    for process in module.parallel:
        yield from _assigned(module, process)
        yield from _changed(module, process)


def _assigned(module: Module, process: Process) -> Iterator[Finding]:
    names = {
        name
        for node in nodes(process)
        if isinstance(node, (ast.Global, ast.Nonlocal))
        for name in node.names
    }
    for node in nodes(process):
        if isinstance(node, ast.AugAssign):
            targets: list[ast.expr] = [node.target]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        else:
            continue
        for target in targets:
            if (
                isinstance(target, ast.Name)
                and target.id in names
                and not _is_read(process, target.id, set())
            ):
                yield _finding(module, process, node, target.id, "assigns")


def _changed(module: Module, process: Process) -> Iterator[Finding]:
    changes: dict[str, list[tuple[ast.AST, ast.Name]]] = {}
    for node in nodes(process):
        name = _changes(node)
        if name is not None and _is_container(module, process, name):
            changes.setdefault(name.id, []).append((node, name))
    for name_id, found in changes.items():
        if not _is_read(process, name_id, {name for _, name in found}):
            for node, _ in found:
                yield _finding(module, process, node, name_id, "changes")


def _changes(node: ast.AST) -> ast.Name | None:
    """The name whose list or dict a node changes."""
    changed: ast.AST | None = None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        func = node.value.func
        if isinstance(func, ast.Attribute) and func.attr in _GROWING:
            changed = func.value
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
        changed = node.target.value
    elif isinstance(node, (ast.Assign, ast.Delete)):
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                changed = target.value
    while isinstance(changed, ast.Subscript):
        changed = changed.value
    return changed if isinstance(changed, ast.Name) else None


def _is_container(module: Module, process: Process, name: ast.Name) -> bool:
    scope = module.find(name.id, name)
    if scope is None or scope.node in set(ast.walk(process.node)):
        return False
    origins = module.origins(name)
    return bool(origins) and all(
        isinstance(origin, _DISPLAYS) or module.called(origin) in _MADE_BY for origin in origins
    )


def _is_read(process: Process, name: str, changing: set[ast.Name]) -> bool:
    """Whether a process uses a name otherwise than to change what it means."""
    return any(
        isinstance(node, ast.Name)
        and node.id == name
        and isinstance(node.ctx, ast.Load)
        and node not in changing
        for node in nodes(process)
    )


def _finding(module: Module, process: Process, node: ast.AST, name: str, does: str) -> Finding:
    return module.finding(
        "TH003",
        node,
        f"parallel process {process.name!r} {does} {name!r}, of which each worker has its own: "
        "nobody else sees the change. Return the value, and name its path in outputs=[…] if it "
        "belongs into the state.",
    )
