"""Whether an array is published where it is written to."""

from __future__ import annotations

import ast

from .module import Module
from .scopes import Binding
from .writes import Write

__all__ = ["is_shared", "publication"]


def heavy_call(module: Module, node: ast.AST) -> str | None:
    """``alloc`` or ``put`` when a node is a call of that on an engine's ``heavy``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    return node.func.attr if is_heavy(module, node.func.value) else None


def is_heavy(module: Module, node: ast.AST) -> bool:
    """Whether a node is ``engine.heavy``."""
    return all(
        isinstance(origin, ast.Attribute)
        and origin.attr == "heavy"
        and module.is_engine(origin.value)
        for origin in module.origins(node)
    )


def is_shared(module: Module, node: ast.AST) -> bool:
    """Whether an expression surely is an array of ``engine.heavy``."""
    return all(
        heavy_call(module, origin) in ("alloc", "put", "get")
        or (isinstance(origin, ast.Subscript) and is_heavy(module, origin.value))
        for origin in module.origins(node)
    )


def publication(module: Module, write: Write) -> str | None:
    """The text of the key under which what is written is published; None when it is not."""
    array = write.array
    if isinstance(array, ast.Subscript) and is_heavy(module, array.value):
        return None if _has_live_arrays(module) else module.source.segment(array.slice)
    if not isinstance(array, ast.Name):
        return None
    bindings = module.reaching(array.id, array)
    scope = module.find(array.id, array)
    if len(bindings) != 1 or scope is None or scope is not module.scope_of.get(array):
        return None
    binding = bindings[0]
    origin = binding.value
    if isinstance(origin, ast.Subscript) and is_heavy(module, origin.value):
        return None if _has_live_arrays(module) else module.source.segment(origin.slice)
    made = None if origin is None else heavy_call(module, origin)
    if made is None or not isinstance(origin, ast.Call) or not origin.args:
        return None
    key = module.source.segment(origin.args[0])
    if made == "put":
        return key
    if made != "alloc" or any(keyword.arg == "live" for keyword in origin.keywords):
        return None
    return key if _published_before(module, array, binding, write.node) else None


def _has_live_arrays(module: Module) -> bool:
    return any(isinstance(node, ast.keyword) and node.arg == "live" for node in module.nodes)


def _published_before(module: Module, array: ast.Name, binding: Binding, write: ast.AST) -> bool:
    for node in module.nodes:
        if not _publishes(module, node, array.id):
            continue
        if module.reaching(array.id, node) != [binding]:
            continue
        if module.scope_of.get(node) is not module.scope_of.get(array):
            continue
        if module.always_before(node, write) or _next_round(module, node, binding, write):
            return True
    return False


def _publishes(module: Module, node: ast.AST, name: str) -> bool:
    """``name.publish()``, or a swap whose ``heavy={…: name}``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if node.func.attr == "publish":
        return isinstance(node.func.value, ast.Name) and node.func.value.id == name
    if node.func.attr != "compare_and_swap" or not module.is_engine(node.func.value):
        return False
    given = [k.value for k in node.keywords if k.arg == "heavy"]
    return any(
        isinstance(value, ast.Name) and value.id == name
        for display in given
        if isinstance(display, ast.Dict)
        for value in display.values
    )


def _next_round(module: Module, publish: ast.AST, binding: Binding, write: ast.AST) -> bool:
    """Whether a loop publishes what it writes to in its next round."""
    outside = module.loops(binding.node)
    for loop in module.loops(publish):
        if loop in outside or loop not in module.loops(write):
            continue
        if not any(isinstance(node, (ast.Break, ast.Return, ast.Raise)) for node in ast.walk(loop)):
            around = module.blocks(module.statement(publish))[:1]
            return around == [(loop, "body")] and (loop, "body") in module.blocks(write)
    return False
