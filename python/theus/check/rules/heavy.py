"""TH007, TH008: writes to arrays that others read."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..context import heavy_access, is_part, is_view_of_heavy, nodes
from ..edits import replace
from ..findings import Finding, Fix
from ..module import Module, Process
from ..published import publication
from ..writes import Write, writes

__all__ = ["check"]


def check(module: Module) -> Iterator[Finding]:
    """Writes to ``ctx.heavy`` in processes, and to published arrays anywhere."""
    seen: set[ast.AST] = set()
    for process in module.processes:
        if process.ctx is None:
            continue
        for write in writes(module, nodes(process)):
            finding = _to_heavy(module, process, write)
            if finding is not None and write.node not in seen:
                seen.add(write.node)
                yield finding
    for write in writes(module, module.nodes):
        key = publication(module, write)
        if key is not None and write.node not in seen:
            seen.add(write.node)
            yield module.finding(
                "TH008",
                write.node,
                f"{_text(module, write)} writes to an array that is published here, so others "
                "read it and it is read-only. Write before publishing, or make the next version: "
                f"with engine.heavy.edit({key or 'key'}) as array.",
            )


def _to_heavy(module: Module, process: Process, write: Write) -> Finding | None:
    assigns = isinstance(write.node, ast.Assign) and write.how == "[…] ="
    if assigns and is_part(module, process, write.array, "heavy"):
        return module.finding(
            "TH007",
            write.node,
            f"process {process.name!r} assigns to a key of ctx.heavy, which is read-only. Return "
            "the array and name 'heavy.<key>' in outputs=[…], or use engine.heavy.put.",
        )
    access = is_view_of_heavy(module, process, write.array)
    if access is None:
        return None
    key = "key" if access.key is None else repr(access.key)
    return module.finding(
        "TH007",
        write.node,
        f"process {process.name!r} writes to ctx.heavy[{key}] ({_text(module, write)}), which is "
        f"read-only. Write to ctx.heavy.cow({key}), a private view, or return a new array.",
        fix=_copy_on_write(module, process, write),
    )


def _text(module: Module, write: Write) -> str:
    name = module.source.segment(write.array)
    if write.how.startswith("."):
        return f"{name}{write.how}"
    if write.how == "[…] =":
        return f"{name}[…] = …"
    if write.how == "… =":
        return f"{name} changed in place"
    return f"{write.how}{name}" if write.how == "out=" else f"{write.how} of {name}"


def _copy_on_write(module: Module, process: Process, write: Write) -> Fix | None:
    """Bind the name to a private view, where it is bound once, to ``ctx.heavy[key]``."""
    if not isinstance(write.array, ast.Name):
        return None
    origins = module.origins(write.array)
    origin = origins[0] if len(origins) == 1 else None
    access = None if origin is None else heavy_access(module, process, origin)
    bound = module.reaching(write.array.id, write.array)
    if (
        access is None
        or access.how != "item"
        or not isinstance(access.node, ast.Subscript)
        or len(bound) != 1
        or bound[0].value is not access.node
    ):
        return None
    view = module.source.segment(access.node.value)
    key = module.source.segment(access.node.slice)
    return Fix("read a private view", (replace(module, access.node, f"{view}.cow({key})"),))
