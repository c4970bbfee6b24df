"""TH009, TH010: shared memory that is made or removed by hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..edits import remove_statement
from ..findings import Finding, Fix
from ..mends import memory_to_alloc
from ..module import Module

__all__ = ["MADE_BY_HAND", "check"]

MADE_BY_HAND = "multiprocessing.shared_memory.SharedMemory"


def check(module: Module) -> Iterator[Finding]:
    """Uses of SharedMemory, and unlink and close of what the library owns."""
    for node in module.nodes:
        if not isinstance(node, ast.Call):
            continue
        if module.called(node) == MADE_BY_HAND:
            yield module.finding(
                "TH009",
                node,
                "SharedMemory is made by hand: whoever dies leaves it behind, and nobody counts "
                "it. Allocate with engine.heavy.alloc(key, shape, dtype), and read ctx.heavy[key] "
                "in processes.",
                fix=memory_to_alloc(module, node),
            )
            continue
        func = node.func
        if (
            isinstance(func, ast.Attribute)
            and func.attr in ("unlink", "close")
            and _is_ours(module, func.value)
        ):
            yield _by_hand(module, node, func)


def _is_ours(module: Module, memory: ast.expr) -> bool:
    """Whether an expression is the ``.shm`` of an array of ours, as far as that can be told."""
    for origin in module.origins(memory):
        if not isinstance(origin, ast.Attribute) or origin.attr != "shm":
            return False
        if isinstance(origin.value, ast.Name) and origin.value.id in ("self", "cls"):
            return False  # an attribute of that name that the class has for itself
    return not any(
        isinstance(node, ast.Attribute) and node.attr == "shm" and isinstance(node.ctx, ast.Store)
        for node in module.nodes
    )


def _by_hand(module: Module, node: ast.Call, func: ast.Attribute) -> Finding:
    name = module.source.segment(func)
    parent = module.parents[node]
    edit = remove_statement(module, parent) if isinstance(parent, ast.Expr) else None
    fix = None if edit is None else Fix(f"remove {name}()", (edit,))
    if func.attr == "unlink":
        text = f"{name}() is refused: the library owns the memory, which goes with its last reader."
        return module.finding("TH010", node, f"{text} Leave it out.", fix=fix)
    return module.finding(
        "TH010",
        node,
        f"{name}() does nothing: the memory goes with the last array that shows it. Leave it out.",
        severity="warning",
        fix=fix,
    )
