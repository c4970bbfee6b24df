"""What a module has of theus: its engines, its processes with their contracts, and its calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from ..names import ENGINE_OPTIONS
from .findings import RULES, Finding, Fix, Severity
from .scopes import Function, Scopes
from .source import Source, place

__all__ = ["Call", "Module", "Process"]

_DECORATORS = {"theus.process", "theus.contracts.process"}
_ENGINES = {"theus.TheusEngine", "theus.engine.TheusEngine"}
_WAYS = {"execute", "run", "submit", "map", "execute_parallel"}
_OPTIONS = {*ENGINE_OPTIONS, "chunksize", "progress", "out"}


@dataclass(eq=False)
class Process:
    """A function that runs as a process.

    Attributes:
        node: its definition.
        parallel: whether it runs in workers; None: that cannot be told.
        inputs: what its contract names; None: that cannot be told.
        outputs: the same.
        decorator: the call of ``process(…)``, if it is one.
        ctx: the parameter that gets the context.
    """

    node: Function
    parallel: bool | None
    inputs: tuple[str, ...] | None = ()
    outputs: tuple[str, ...] | None = ()
    decorator: ast.Call | None = None
    ctx: ast.arg | None = None

    @property
    def name(self) -> str:
        return self.node.name

    def parameters(self) -> list[ast.arg]:
        """Its parameters, the context left out."""
        a = self.node.args
        return [p for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p is not self.ctx]


@dataclass(eq=False)
class Call:
    """A call that runs a process: ``engine.run(fn, …)`` and its like."""

    node: ast.Call
    way: str
    receiver: ast.expr
    process: Process | None

    @property
    def parallel(self) -> bool:
        """Whether it surely runs in a worker."""
        if self.way == "execute_parallel":
            return True
        return self.process is not None and self.process.parallel is True

    def arguments(self) -> Iterator[tuple[str, ast.expr]]:
        """What it sends, with the place where the library's own errors say that it is."""
        for index, value in enumerate(self.node.args[1:]):
            yield f"args[{index}]", value
        for keyword in self.node.keywords:
            if keyword.arg not in _OPTIONS:
                yield f"inputs[{keyword.arg!r}]" if keyword.arg else "inputs", keyword.value


class Module(Scopes):
    """A file, as the rules look at it.

    Args:
        source: its text and tree.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.processes = list(self._decorated())
        self._by_node: dict[ast.AST, Process] = {p.node: p for p in self.processes}
        self.calls = list(self._calls())
        self.keywords = {
            keyword.arg
            for call in self.calls
            for keyword in call.node.keywords
            if keyword.arg is not None
        }
        self.sends_unknown = any(k.arg is None for call in self.calls for k in call.node.keywords)

    @property
    def parallel(self) -> list[Process]:
        """The processes that surely run in workers."""
        return [process for process in self.processes if process.parallel is True]

    def finding(
        self,
        code: str,
        node: ast.AST,
        message: str,
        *,
        severity: Severity | None = None,
        fix: Fix | None = None,
    ) -> Finding:
        """A finding at a node."""
        line, column, end_line, end_column = place(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            end_line, end_column = line, column  # its first line is enough to point at
        return Finding(
            self.source.path,
            line,
            self.source.character(line, column),
            end_line,
            self.source.character(end_line, end_column),
            code,
            severity or RULES[code].severity,
            message,
            fix,
        )

    # -- engines -------------------------------------------------------------------------------

    def opens_engine(self, node: ast.AST) -> bool:
        """Whether this is ``TheusEngine(…)``."""
        return isinstance(node, ast.Call) and self.called(node) in _ENGINES

    def is_engine(self, expression: ast.AST) -> bool:
        """Whether an expression is an engine, or a view of one with options."""
        origins = self.origins(expression)
        return bool(origins) and all(self._is_engine(origin) for origin in origins)

    def _is_engine(self, origin: ast.AST) -> bool:
        if isinstance(origin, ast.Call):
            if isinstance(origin.func, ast.Attribute) and origin.func.attr == "options":
                return self.is_engine(origin.func.value)
            return self.opens_engine(origin)
        if isinstance(origin, ast.arg):
            return self._annotated(origin)
        if isinstance(origin, ast.Attribute):
            values = self._attribute(origin)
            return bool(values) and all(self.is_engine(value) for value in values)
        return False

    def _annotated(self, argument: ast.arg) -> bool:
        note = argument.annotation
        if isinstance(note, ast.Constant) and isinstance(note.value, str):
            return note.value.rpartition(".")[2] == "TheusEngine"
        return self.qualified(note) in _ENGINES

    def _attribute(self, attribute: ast.Attribute) -> list[ast.expr]:
        """What ``self.name`` is assigned in the class around."""
        around = next((a for a in self.ancestors(attribute) if isinstance(a, ast.ClassDef)), None)
        if around is None or not isinstance(attribute.value, ast.Name):
            return []
        mine = attribute.value.id
        found: list[ast.expr] = []
        for node in ast.walk(around):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if (
                    isinstance(target, ast.Attribute)
                    and target.attr == attribute.attr
                    and isinstance(target.value, ast.Name)
                    and target.value.id == mine
                ):
                    assert isinstance(node, ast.Assign)
                    found.append(node.value)
        return found

    # -- processes -----------------------------------------------------------------------------

    def _decorated(self) -> Iterator[Process]:
        for node in self.nodes:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if self.qualified(called) in _DECORATORS:
                    yield self._process(node, decorator)
                    break

    def _process(self, node: Function, decorator: ast.expr) -> Process:
        call = decorator if isinstance(decorator, ast.Call) else None
        arguments = [*node.args.posonlyargs, *node.args.args]
        ctx = arguments[0] if arguments and arguments[0].arg not in ("self", "cls") else None
        if call is None:
            return Process(node, False, ctx=ctx)
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        names = ("inputs", "outputs", "semantic", "errors", "side_effects", "parallel")
        given.update(zip(names, call.args, strict=False))
        parallel: bool | None = False
        if "parallel" in given:
            value = self.constant(given["parallel"])
            parallel = bool(value) if isinstance(value, (bool, int)) else None
        if None in given:  # **something
            return Process(node, None, None, None, call, ctx)
        return Process(
            node,
            parallel,
            self._names(given.get("inputs")),
            self._names(given.get("outputs")),
            call,
            ctx,
        )

    def _names(self, value: ast.expr | None) -> tuple[str, ...] | None:
        if value is None:
            return ()
        named = self.constant(value)
        if isinstance(named, str):
            return (named,)
        if named is None and isinstance(value, ast.Constant):
            return ()
        if isinstance(named, (list, tuple, set)) and all(isinstance(n, str) for n in named):
            return tuple(named)
        return None

    def process_of(self, expression: ast.AST) -> Process | None:
        """The process that a function or a name, in an expression, means."""
        if isinstance(expression, ast.Constant):
            named = [p for p in self.processes if p.name == expression.value]
            return named[0] if len(named) == 1 else None
        origins = self.origins(expression)
        return self._by_node.get(origins[0]) if len(origins) == 1 else None

    # -- calls ---------------------------------------------------------------------------------

    def _calls(self) -> Iterator[Call]:
        for node in self.nodes:
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _WAYS
                and node.args
                and not isinstance(node.args[0], ast.Starred)
            ):
                process = self.process_of(node.args[0])
                engine = self.is_engine(node.func.value)
                if engine and process is None:
                    process = self._undecorated(node.args[0])
                if engine or process is not None:
                    yield Call(node, node.func.attr, node.func.value, process)

    def _undecorated(self, expression: ast.expr) -> Process | None:
        """A plain function of this module that an engine runs: it goes to the workers."""
        origins = self.origins(expression)
        node = origins[0] if len(origins) == 1 else None
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.decorator_list:
            return None
        arguments = [*node.args.posonlyargs, *node.args.args]
        ctx = arguments[0] if arguments and arguments[0].arg == "ctx" else None
        process = Process(node, True, ctx=ctx)
        self.processes.append(process)
        self._by_node[node] = process
        return process
