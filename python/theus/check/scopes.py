"""Which names a module binds, where, and to what: enough to follow a name to where it comes from.

Only what can be told by looking at one file is told. A name that is bound in several ways has
several origins, and a rule speaks up only when all of them are what it looks for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .binder import COMPREHENSIONS, Binder, Binding, Function, Scope
from .source import Source, begin, end

__all__ = ["Binding", "Function", "Scope", "Scopes"]

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_DEPTH = 12  # of names that are bound to names


class Scopes:
    """The names of a module.

    Args:
        source: its text and tree.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tree = source.tree
        binder = Binder(source.tree)
        self.parents = binder.parents
        self.scope_of = binder.scope_of
        self.nodes = binder.nodes
        self.module = binder.module

    # -- places --------------------------------------------------------------------------------

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around a node, from inside."""
        parent = self.parents.get(node)
        while parent is not None:
            yield parent
            parent = self.parents.get(parent)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement that a node is in."""
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    def function(self, node: ast.AST) -> Function | ast.Lambda | None:
        """The innermost function around a node."""
        for around in self.ancestors(node):
            if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                return around
        return None

    def body(self, statement: ast.stmt) -> list[ast.stmt]:
        """The list of statements that a statement is in."""
        parent = self.parents[statement]
        for _, value in ast.iter_fields(parent):
            if isinstance(value, list) and any(item is statement for item in value):
                return value
        return [statement]

    def loops(self, node: ast.AST) -> list[ast.AST]:
        """The loops around a node, within its function."""
        found: list[ast.AST] = []
        owner = self._owner(node)
        for around in self.ancestors(node):
            if around is owner:
                break
            if isinstance(around, _LOOPS):
                found.append(around)
        return found

    def blocks(self, node: ast.AST) -> list[tuple[ast.AST, str]]:
        """The blocks that a node is in, from inside, up to its function's.

        The body of a ``with`` counts as part of the block around it: it always runs.
        """
        found: list[tuple[ast.AST, str]] = []
        child, owner = node, self._owner(node)
        for around in self.ancestors(node):
            if isinstance(child, (ast.stmt, ast.ExceptHandler)):
                name = _field(around, child)
                if not isinstance(around, (ast.With, ast.AsyncWith)):
                    found.append((around, name))
            if around is owner:
                break
            child = around
        return found

    def _owner(self, node: ast.AST) -> ast.AST:
        """The function, class or module whose code a node is part of."""
        scope = self.scope_of.get(node, self.module)
        while scope.parent is not None and isinstance(scope.node, COMPREHENSIONS):
            scope = scope.parent
        return scope.node

    def always_before(self, first: ast.AST, then: ast.AST) -> bool:
        """Whether `first` has run whenever `then` runs, both in one function."""
        around = self.blocks(self.statement(first))
        return end(first) <= begin(then) and bool(around) and around[0] in self.blocks(then)

    # -- names ---------------------------------------------------------------------------------

    def find(self, name: str, at: ast.AST) -> Scope | None:
        """The scope whose name this is, None for a builtin or a name that nobody binds."""
        scope: Scope | None = self.scope_of.get(at, self.module)
        innermost = True
        while scope is not None:
            if name in scope.elsewhere:
                target = scope.elsewhere[name]
                return target if target is not None and name in target.bindings else None
            if name in scope.bindings and (innermost or not isinstance(scope.node, ast.ClassDef)):
                return scope
            innermost = False
            scope = scope.parent
        return None

    def reaching(self, name: str, at: ast.AST) -> list[Binding]:
        """The bindings that may have given a name its value at a place."""
        scope = self.find(name, at)
        if scope is None:
            return []
        bindings = scope.bindings[name]
        if scope is not self.scope_of.get(at):
            return bindings  # it runs at some time, after any of them
        here, blocks, loops = begin(at), self.blocks(at), self.loops(at)
        found: list[Binding] = []
        for binding in reversed([b for b in bindings if b.since <= here]):
            found.append(binding)
            if binding.kind == "parameter" or self._block(binding.node) in blocks:
                inside = self.loops(binding.node)
                loops = [loop for loop in loops if loop not in inside]
                break
        later = [b for b in bindings if b.since > here]
        return found + [b for b in later if any(loop in self.loops(b.node) for loop in loops)]

    def _block(self, node: ast.AST) -> tuple[ast.AST, str] | None:
        blocks = self.blocks(node if isinstance(node, ast.stmt) else self.statement(node))
        return blocks[0] if blocks else None

    def origins(self, expression: ast.AST, depth: int = _DEPTH) -> list[ast.AST]:
        """Where the value of an expression comes from: other names are followed.

        Returns:
            Expressions that are no names, parameters (`ast.arg`), definitions, or the name itself
            when nothing is known of it.
        """
        if depth and isinstance(expression, ast.NamedExpr):
            return self.origins(expression.value, depth - 1)
        if depth and isinstance(expression, ast.IfExp):
            return [
                *self.origins(expression.body, depth - 1),
                *self.origins(expression.orelse, depth - 1),
            ]
        if not depth or not isinstance(expression, ast.Name):
            return [expression]
        found: list[ast.AST] = []
        for binding in self.reaching(expression.id, expression):
            if binding.value is not None:
                found += self.origins(binding.value, depth - 1)
            elif binding.kind == "import":
                found.append(expression)
            else:
                found.append(binding.node)
        return found or [expression]

    def qualified(self, expression: ast.AST | None) -> str:
        """``numpy.random.rand`` for ``np.random.rand``; empty when that cannot be told."""
        if isinstance(expression, ast.Attribute):
            base = self.qualified(expression.value)
            return f"{base}.{expression.attr}" if base else ""
        if not isinstance(expression, ast.Name):
            return ""
        bindings = self.reaching(expression.id, expression)
        if not bindings:
            return f"builtins.{expression.id}" if self._is_free(expression) else ""
        found = {binding.qualified for binding in bindings}
        return found.pop() if len(found) == 1 else ""

    def _is_free(self, name: ast.Name) -> bool:
        return self.find(name.id, name) is None

    def called(self, expression: ast.AST) -> str:
        """The qualified name of what a call calls; empty for anything else."""
        return self.qualified(expression.func) if isinstance(expression, ast.Call) else ""

    def constant(self, expression: ast.AST | None) -> object:
        """The value of a literal, or of a name that is bound to one; None when unknown."""
        if expression is None:
            return None
        origins = self.origins(expression)
        if len(origins) != 1:
            return None
        try:
            return ast.literal_eval(origins[0])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None


def _field(parent: ast.AST, child: ast.AST) -> str:
    for name, value in ast.iter_fields(parent):
        if value is child or (isinstance(value, list) and any(item is child for item in value)):
            return name
    return ""
