"""The bindings of a module, found in one walk through its tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from .source import Position, begin, end

__all__ = ["COMPREHENSIONS", "Binder", "Binding", "Function", "Scope"]

Function = ast.FunctionDef | ast.AsyncFunctionDef
Kind = Literal["value", "parameter", "import", "definition", "other"]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class Binding:
    """One place that gives a name a value.

    Attributes:
        node: the statement, parameter or definition.
        kind: how it is bound.
        since: from which position on it holds.
        value: the expression, of kind "value".
        qualified: what is imported, of kind "import".
    """

    node: ast.AST
    kind: Kind
    since: Position
    value: ast.expr | None = None
    qualified: str = ""


@dataclass
class Scope:
    """A module, class, function, lambda or comprehension."""

    node: ast.AST
    parent: Scope | None
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    elsewhere: dict[str, Scope | None] = field(default_factory=dict)  # global and nonlocal names


class Binder(ast.NodeVisitor):
    """Walks a tree; its attributes are what it has found.

    Args:
        tree: of a module.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.parents: dict[ast.AST, ast.AST] = {}
        self.scope_of: dict[ast.AST, Scope] = {}
        self.nodes: list[ast.AST] = []
        self.module = self._scope = Scope(tree, None)
        self.visit(tree)

    def visit(self, node: ast.AST) -> None:
        self.scope_of[node] = self._scope
        self.nodes.append(node)
        super().visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        self._children(node)

    def _children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self._under(node, child)

    def _under(self, parent: ast.AST, child: ast.AST) -> None:
        self.parents[child] = parent
        self.visit(child)

    def _each(self, parent: ast.AST, children: Iterable[ast.AST | None]) -> None:
        for child in children:
            if child is not None:
                self._under(parent, child)

    def _bind(self, name: str, binding: Binding) -> None:
        scope: Scope | None = self._scope
        while scope is not None and isinstance(scope.node, COMPREHENSIONS):
            scope = scope.parent  # a walrus in there binds outside
        assert scope is not None
        target = scope.elsewhere.get(name, scope)
        if target is not None:
            target.bindings.setdefault(name, []).append(binding)

    def _target(self, target: ast.AST, value: ast.expr | None, node: ast.AST, at: ast.AST) -> None:
        if isinstance(target, ast.Name):
            kind: Kind = "other" if value is None else "value"
            self._bind(target.id, Binding(node, kind, end(at), value))
        elif isinstance(target, ast.Starred):
            self._target(target.value, None, node, at)
        elif isinstance(target, (ast.Tuple, ast.List)):
            values: list[ast.expr | None] = [None] * len(target.elts)
            if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
                starred = any(isinstance(e, ast.Starred) for e in [*target.elts, *value.elts])
                values = values if starred else list(value.elts)
            for element, part in zip(target.elts, values, strict=True):
                self._target(element, part, node, at)

    # -- what binds ----------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._target(target, node.value, node, node)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._target(node.target, node.value, node, node)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._target(node.target, node.value, node, node)
        self.generic_visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._target(node.target, None, node.target, node.target)
        self.generic_visit(node)

    visit_AsyncFor = visit_For

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            if item.optional_vars is not None:
                value = item.context_expr
                self._target(item.optional_vars, value, item.optional_vars, item.optional_vars)
        self.generic_visit(node)

    visit_AsyncWith = visit_With

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name, Binding(node.body[0], "other", begin(node)))
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._target(target, None, node, node)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self._bind(node.name, Binding(node, "other", begin(node)))
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            what = alias.name if alias.asname else name
            self._bind(name, Binding(node, "import", end(node), qualified=what))
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = "." * node.level + (node.module or "")
        for alias in node.names:
            what = f"{base}.{alias.name}"
            self._bind(
                alias.asname or alias.name, Binding(node, "import", end(node), qualified=what)
            )
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self._scope.elsewhere[name] = self.module

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        for name in node.names:
            scope = self._scope.parent
            while scope is not None and name not in scope.bindings:
                scope = scope.parent
            self._scope.elsewhere[name] = scope

    # -- scopes --------------------------------------------------------------------------------

    def _inside(self, node: ast.AST, children: Iterable[ast.AST | None]) -> None:
        outer, self._scope = self._scope, Scope(node, self._scope)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            a = node.args
            for argument in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]:
                if argument is not None:
                    self._bind(argument.arg, Binding(argument, "parameter", begin(argument)))
        self._each(node, children)
        self._scope = outer

    def visit_FunctionDef(self, node: Function) -> None:
        self._bind(node.name, Binding(node, "definition", begin(node)))
        self._each(node, [*node.decorator_list, node.args, node.returns])
        self._inside(node, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._each(node, [node.args])
        self._inside(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name, Binding(node, "definition", begin(node)))
        self._each(node, [*node.decorator_list, *node.bases, *node.keywords])
        self._inside(node, node.body)

    def _comprehension(self, node: ast.AST) -> None:
        assert isinstance(node, COMPREHENSIONS)
        outer, self._scope = self._scope, Scope(node, self._scope)
        for generator in node.generators:
            for name in ast.walk(generator.target):
                if isinstance(name, ast.Name):
                    binding = Binding(generator.target, "other", begin(node))
                    self._scope.bindings.setdefault(name.id, []).append(binding)
        self._children(node)
        self._scope = outer

    visit_ListComp = _comprehension
    visit_SetComp = _comprehension
    visit_DictComp = _comprehension
    visit_GeneratorExp = _comprehension
