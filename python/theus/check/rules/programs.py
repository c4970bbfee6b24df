"""TH015 to TH017: when engines are opened, forks, and calls that nobody awaits."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..edits import replace
from ..findings import Edit, Finding, Fix
from ..module import Call, Module
from ..source import begin, end

__all__ = ["check"]

_FORKS = {"os.fork", "os.forkpty", "pty.fork"}
_METHODS = {"multiprocessing.set_start_method", "multiprocessing.get_context"}
_LIKE_A_RESULT = {"print", "float", "int", "len", "sum", "str", "list", "max", "min", "round"}


def check(module: Module) -> Iterator[Finding]:
    """All that concerns how a program is built."""
    yield from _opened_by_import(module)
    yield from _forks(module)
    for call in module.calls:
        if call.way in ("execute", "execute_parallel"):
            yield from _not_awaited(module, call)


# ---- TH015 ---------------------------------------------------------------------------------------


def _opened_by_import(module: Module) -> Iterator[Finding]:
    """A module that opens an engine and leaves the work to who imports it; no script does so."""
    if not any(module.scope_of[p.node] is module.module for p in module.parallel):
        return
    if any(_runs_at_import(module, statement) for statement in module.tree.body):
        return
    for node in module.nodes:
        if (
            module.opens_engine(node)
            and module.function(node) is None
            and isinstance(module.statement(node), (ast.Assign, ast.AnnAssign))
        ):
            yield module.finding(
                "TH015",
                node,
                "importing this module opens an engine, and workers import it for its parallel "
                "processes. Open the engine in the program, in a function or below "
                'if __name__ == "__main__".',
            )


def _runs_at_import(module: Module, statement: ast.stmt) -> bool:
    """Whether a statement does work when the file is run: then it is a program."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return False
    if isinstance(statement, (ast.If, ast.For, ast.While, ast.With)):
        return True
    if isinstance(statement, ast.Expr):
        call = statement.value
        if not isinstance(call, ast.Call):
            return False
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        return method not in ("register", "scan_and_register")
    return any(module.statement(call.node) is statement for call in module.calls)


# ---- TH016 ---------------------------------------------------------------------------------------


def _forks(module: Module) -> Iterator[Finding]:
    opened = [node for node in module.nodes if module.opens_engine(node)]
    for node in module.nodes:
        if not isinstance(node, ast.Call) or not _is_after(module, node, opened):
            continue
        name = module.called(node)
        if name in _FORKS and not _child_is_harmless(module, node):
            how = f"{name}()"
        elif name in _METHODS and _method(module, node) == "fork":
            how = f'{name}("fork")'
        else:
            continue
        yield module.finding(
            "TH016",
            node,
            f"{how} after an engine was opened: the library holds a Go runtime, which does not "
            "survive a fork, and a child that touches theus gets ForkedProcessError. Fork before "
            "opening the engine, or start children with spawn or forkserver.",
        )


def _is_after(module: Module, node: ast.AST, opened: list[ast.AST]) -> bool:
    """Whether an engine was surely opened before, in the same function."""
    mine = module.function(node)
    return any(
        module.function(engine) is mine and module.always_before(engine, node) for engine in opened
    )


def _method(module: Module, node: ast.Call) -> object:
    given = node.args[:1] or [k.value for k in node.keywords if k.arg == "method"]
    return module.constant(given[0]) if given else None


def _child_is_harmless(module: Module, fork: ast.Call) -> bool:
    """Whether the child's branch can be seen, and has nothing to do with an engine."""
    statement = module.statement(fork)
    if isinstance(statement, ast.If):
        branch: ast.If | None = statement
        name = None
    else:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        name = targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None
        branch = next(
            (
                node
                for node in module.body(statement)
                if isinstance(node, ast.If) and begin(node) > end(statement)
            ),
            None,
        )
    if branch is None or not _tests_for_child(branch.test, name):
        return False
    for inside in branch.body:
        for node in ast.walk(inside):
            if isinstance(node, ast.Name) and _comes_from_theus(module, node):
                return False
    return _ends_the_child(module, branch.body)


def _ends_the_child(module: Module, body: list[ast.stmt]) -> bool:
    last = body[-1]
    name = module.called(last.value) if isinstance(last, ast.Expr) else ""
    return name in ("os._exit", "sys.exit") or name.startswith("os.exec")


def _tests_for_child(test: ast.expr, name: str | None) -> bool:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return name is None or (isinstance(test.operand, ast.Name) and test.operand.id == name)
    return (
        isinstance(test, ast.Compare)
        and len(test.ops) == 1
        and isinstance(test.ops[0], ast.Eq)
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == 0
        and (name is None or (isinstance(test.left, ast.Name) and test.left.id == name))
    )


def _comes_from_theus(module: Module, name: ast.Name) -> bool:
    if module.qualified(name).startswith("theus"):
        return True
    for origin in module.origins(name):
        if isinstance(origin, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return True  # who knows what it does
        for node in ast.walk(origin):
            if module.opens_engine(node):
                return True
            if isinstance(node, ast.Name) and node is not name and module.is_engine(node):
                return True
    return False


# ---- TH017 ---------------------------------------------------------------------------------------


def _not_awaited(module: Module, call: Call) -> Iterator[Finding]:
    node = call.node
    parent = module.parents[node]
    if isinstance(parent, ast.Expr):
        where = "and nothing runs"
    elif _is_result(module, node):
        where = "and this is a coroutine, not its result"
    elif isinstance(parent, ast.Assign) and _is_used_as_result(module, parent):
        where = "and what is bound here is a coroutine, not its result"
    else:
        return
    name = module.source.segment(node.func)
    yield module.finding(
        "TH017",
        node,
        f"{name}(…) is not awaited, {where}. Write await {name}(…), or call run() where there is "
        "no event loop.",
        fix=_mend(module, call, parent),
    )


def _is_result(module: Module, node: ast.AST) -> bool:
    """Whether what is around an expression takes it for a result that is there."""
    parent = module.parents[node]
    if isinstance(parent, (ast.Subscript, ast.Attribute)) and parent.value is node:
        return not isinstance(parent, ast.Attribute) or parent.attr not in ("send", "close")
    if isinstance(parent, (ast.BinOp, ast.Compare, ast.FormattedValue, ast.UnaryOp)):
        return True
    return (
        isinstance(parent, ast.Call)
        and node in parent.args
        and isinstance(parent.func, ast.Name)
        and parent.func.id in _LIKE_A_RESULT
        and module.find(parent.func.id, parent.func) is None
    )


def _is_used_as_result(module: Module, statement: ast.Assign) -> bool:
    if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
        return False
    name = statement.targets[0].id
    uses = [
        node
        for node in module.nodes
        if isinstance(node, ast.Name)
        and node.id == name
        and isinstance(node.ctx, ast.Load)
        and any(binding.node is statement for binding in module.reaching(name, node))
    ]
    return bool(uses) and all(_is_result(module, use) for use in uses)


def _mend(module: Module, call: Call, parent: ast.AST) -> Fix | None:
    function = module.function(call.node)
    assert isinstance(call.node.func, ast.Attribute)
    if isinstance(function, ast.AsyncFunctionDef):
        start, stop = module.source.span(call.node)
        plain = isinstance(parent, (ast.Expr, ast.Assign))
        opening, closing = ("await ", "") if plain else ("(await ", ")")
        edits = [Edit(start, start, opening)]
        return Fix("await it", (*edits, *([Edit(stop, stop, closing)] if closing else [])))
    if isinstance(function, ast.Lambda) or call.way != "execute":
        return None
    receiver = module.source.segment(call.node.func.value)
    return Fix("call run()", (replace(module, call.node.func, f"{receiver}.run"),))
