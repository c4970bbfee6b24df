"""Edits of a text at the places that its tree names."""

from __future__ import annotations

import ast

from .findings import Edit
from .module import Module
from .source import begin

__all__ = ["insert_before", "newline", "remove_element", "remove_statement", "replace"]


def newline(module: Module) -> str:
    """How lines end in the file."""
    return "\r\n" if b"\r\n" in module.source.data else "\n"


def replace(module: Module, node: ast.AST, text: str) -> Edit:
    """Put a text where a node is."""
    return Edit(*module.source.span(node), text)


def remove_statement(module: Module, statement: ast.stmt) -> Edit | None:
    """Take a statement out, with its lines; None when it shares them."""
    lines = module.source.lines_of(statement)
    if lines is None:
        return None
    if len(module.body(statement)) == 1:
        return replace(module, statement, "pass")
    return Edit(*lines, "")


def insert_before(module: Module, statement: ast.stmt, text: str) -> Edit | None:
    """Put a line before a statement; None when that does not begin its line."""
    if module.source.lines_of(statement) is None or getattr(statement, "decorator_list", None):
        return None
    start, _ = module.source.span(statement)
    return Edit(start, start, text + newline(module) + module.source.indent(statement))


def remove_element(module: Module, elements: list[ast.AST], element: ast.AST) -> Edit | None:
    """Take one of several nodes out that commas separate; None when a comment is in the way."""
    listed = sorted(elements, key=begin)
    index = listed.index(element)
    start, stop = module.source.span(element)
    if index + 1 < len(listed):
        stop = module.source.span(listed[index + 1])[0]
    elif index:
        start = module.source.span(listed[index - 1])[1]
    return None if b"#" in module.source.data[start:stop] else Edit(start, stop, "")
