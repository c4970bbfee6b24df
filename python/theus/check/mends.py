"""The mends that take more than one edit: an argument into heavy, SharedMemory into alloc.

Each is offered only where the whole use of the array can be seen, and nothing else changes.
"""

from __future__ import annotations

import ast

from .edits import insert_before, remove_element, remove_statement, replace
from .findings import Edit, Fix
from .module import Call, Module, Process

__all__ = ["array_to_heavy", "memory_to_alloc"]

_READING = {
    *("sum", "mean", "min", "max", "std", "var", "prod", "dot", "argmin", "argmax", "any", "all"),
    *("shape", "size", "ndim", "dtype", "nbytes", "tolist", "copy", "astype", "cumsum"),
}
_READERS = {"builtins.len", "builtins.float", "builtins.int", "builtins.sum", "builtins.sorted"}
_WRITERS = {"copyto", "put", "place", "putmask", "fill_diagonal", "shuffle", "put_along_axis"}
_VIEWS = {"asarray", "ravel", "reshape", "transpose", "swapaxes", "squeeze", "atleast_2d"}


# ---- an argument into heavy ----------------------------------------------------------------------


def array_to_heavy(module: Module, call: Call, value: ast.expr) -> Fix | None:
    """Put the array into heavy before the call, and read it there in the process."""
    process = call.process
    if (
        process is None
        or process.ctx is None
        or call.way not in ("run", "execute", "submit")
        or not isinstance(call.receiver, (ast.Name, ast.Attribute))
        or not _is_only_use(module, call, process)
    ):
        return None
    parameter = _parameter(call, process, value)
    statement = _where(module, call, value)
    if parameter is None or statement is None or not _is_only_read(module, process, parameter):
        return None
    key = parameter.arg
    contract = _contract(module, process, key)
    body = process.node.body
    first = body[1] if len(body) > 1 and _is_text(body[0]) else body[0]
    receiver = module.source.segment(call.receiver)
    argument = next((k for k in call.node.keywords if k.value is value), value)
    edits = [
        insert_before(
            module, statement, f'{receiver}.heavy.put("{key}", {module.source.segment(value)})'
        ),
        remove_element(module, [*call.node.args, *call.node.keywords], argument),
        remove_element(
            module, [*process.node.args.posonlyargs, *process.node.args.args], parameter
        ),
        insert_before(module, first, f'{key} = {process.ctx.arg}.heavy["{key}"]'),
    ]
    found = [edit for edit in edits if edit is not None]
    if len(found) < len(edits) or contract is None:
        return None
    return Fix(f"publish it as {key!r}", (*found, *contract))


def _is_only_use(module: Module, call: Call, process: Process) -> bool:
    """Whether nothing else calls the process or hands it on."""
    if [c for c in module.calls if c.process is process] != [call]:
        return False
    uses = [
        node
        for node in module.nodes
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and node.id == process.name
        and module.origins(node) == [process.node]
    ]
    return uses in ([], [call.node.args[0]])


def _parameter(call: Call, process: Process, value: ast.expr) -> ast.arg | None:
    """The parameter that gets the value: a plain one, without a default."""
    a = process.node.args
    plain = [*a.posonlyargs, *a.args]
    plain = [p for p in plain[: len(plain) - len(a.defaults)] if p is not process.ctx]
    given = call.node.args[1:]
    if any(isinstance(argument, ast.Starred) for argument in given):
        return None
    if value in given:
        index = given.index(value)
        return plain[index] if index < len(plain) else None
    name = next((k.arg for k in call.node.keywords if k.value is value), None)
    return next((p for p in a.args if p.arg == name and p in plain), None)


def _where(module: Module, call: Call, value: ast.expr) -> ast.stmt | None:
    """The statement before which to publish: outside of loops that leave the array alone."""
    scope = module.scope_of[call.node]
    if not isinstance(scope.node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef)):
        return None
    statement = module.statement(call.node)
    if isinstance(statement, ast.While):
        return None
    if isinstance(value, ast.Name):
        bindings = module.reaching(value.id, value)
        for loop in module.loops(statement):
            inside = set(ast.walk(loop))
            uses = [n for n in inside if isinstance(n, ast.Name) and n.id == value.id]
            if len(uses) > 1 or any(binding.node in inside for binding in bindings):
                break
            assert isinstance(loop, ast.stmt)
            statement = loop
    return statement


def _is_only_read(module: Module, process: Process, parameter: ast.arg) -> bool:
    for node in ast.walk(process.node):
        if isinstance(node, ast.Name) and node.id == parameter.arg:
            if module.origins(node) != [parameter] or not isinstance(node.ctx, ast.Load):
                return False
            if not _reads(module, node):
                return False
    return True


def _reads(module: Module, node: ast.expr) -> bool:
    """Whether what is around an array takes a value from it, and keeps no view."""
    parent = module.parents[node]
    if isinstance(parent, ast.Attribute):
        return parent.attr in _READING
    if isinstance(parent, ast.Subscript):
        return parent.value is node and isinstance(parent.ctx, ast.Load) and _reads(module, parent)
    if isinstance(parent, (ast.BinOp, ast.Compare)):
        return True
    if isinstance(parent, ast.Call) and node in parent.args:
        name = module.called(parent)
        short = name.rpartition(".")[2]
        return name in _READERS or (
            name.startswith("numpy.") and short not in _WRITERS and short not in _VIEWS
        )
    return False


def _contract(module: Module, process: Process, key: str) -> list[Edit] | None:
    """The edits that the contract needs; None where the key may mean something else already."""
    edits = []
    inside = set(ast.walk(process.decorator)) if process.decorator else set()
    for node in module.nodes:
        if isinstance(node, ast.Constant) and node.value in (key, f"heavy.{key}"):
            if node not in inside or node.value != key:
                return None
            edits.append(replace(module, node, f'"heavy.{key}"'))
    if process.inputs is None or (process.inputs and not edits):
        return None
    return edits


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


# ---- SharedMemory into alloc ---------------------------------------------------------------------


def memory_to_alloc(module: Module, node: ast.Call) -> Fix | None:
    """Allocate from an engine what numpy was shown SharedMemory for, and drop the rest."""
    made = module.parents[node]
    if not isinstance(made, ast.Assign) or len(made.targets) != 1:
        return None
    target = made.targets[0]
    if not isinstance(target, ast.Name) or not _creates(module, node):
        return None
    arrays: list[ast.Call] = []
    gone: list[ast.stmt] = [made]
    for use in module.nodes:
        if not isinstance(use, ast.Name) or use.id != target.id or use is target:
            continue
        if [binding.node for binding in module.reaching(use.id, use)] != [made]:
            return None
        array, ended = _use(module, use)
        if array is not None:
            arrays.append(array)
        elif ended is not None:
            gone.append(ended)
        else:
            return None
    if len(arrays) != 1:
        return None
    allocation = _allocation(module, arrays[0])
    removed = _remove_all(module, [*gone, *_imports(module, node)])
    if allocation is None or removed is None:
        return None
    return Fix("allocate it with engine.heavy", (allocation, *removed))


def _creates(module: Module, node: ast.Call) -> bool:
    return any(k.arg == "create" and module.constant(k.value) is True for k in node.keywords)


def _use(module: Module, use: ast.Name) -> tuple[ast.Call | None, ast.stmt | None]:
    """The array that shows the memory, or the statement that closes or unlinks it."""
    attribute = module.parents[use]
    if not isinstance(attribute, ast.Attribute):
        return None, None
    around = module.parents[attribute]
    if attribute.attr == "buf":
        call = module.parents[around] if isinstance(around, ast.keyword) else around
        if isinstance(call, ast.Call) and module.called(call) == "numpy.ndarray":
            return call, None
    elif attribute.attr in ("close", "unlink") and isinstance(around, ast.Call):
        statement = module.parents[around]
        if isinstance(statement, ast.Expr):
            return None, statement
    return None, None


def _allocation(module: Module, array: ast.Call) -> Edit | None:
    bound = module.parents[array]
    if not isinstance(bound, ast.Assign) or not isinstance(bound.targets[0], ast.Name):
        return None
    key = bound.targets[0].id
    given = dict(zip(("shape", "dtype", "buffer"), array.args, strict=False))
    given.update({k.arg: k.value for k in array.keywords if k.arg is not None})
    engine = _engine_before(module, bound)
    if engine is None or not {"shape", "buffer"} <= set(given) <= {"shape", "dtype", "buffer"}:
        return None
    text = f'{engine}.heavy.alloc("{key}", {module.source.segment(given["shape"])}'
    if "dtype" in given:
        text += f", dtype={module.source.segment(given['dtype'])}"
    return replace(module, array, f"{text})")


def _engine_before(module: Module, statement: ast.stmt) -> str | None:
    """A name that surely is an engine where a statement is."""
    scope = module.scope_of[statement]
    for name, bindings in scope.bindings.items():
        opened = [b for b in bindings if b.value is not None and module.opens_engine(b.value)]
        if len(bindings) == len(opened) == 1 and module.always_before(opened[0].node, statement):
            return name
    return None


def _imports(module: Module, node: ast.Call) -> list[ast.stmt]:
    """The import that nothing else needs once the call is gone."""
    base: ast.AST = node.func
    while isinstance(base, ast.Attribute):
        base = base.value
    if not isinstance(base, ast.Name):
        return []
    uses = [n for n in module.nodes if isinstance(n, ast.Name) and n.id == base.id]
    bindings = module.reaching(base.id, base)
    imports = [b.node for b in bindings if isinstance(b.node, ast.ImportFrom)]
    if len(uses) == 1 and len(imports) == len(bindings) == 1 and len(imports[0].names) == 1:
        return [imports[0]]
    return []


def _remove_all(module: Module, statements: list[ast.stmt]) -> list[Edit] | None:
    """Take statements out; a block that loses all of its own keeps a ``pass``."""
    edits = []
    kept: list[ast.stmt] = []
    for statement in statements:
        body = module.body(statement)
        empties = all(other in statements for other in body)
        if empties and not any(other in kept for other in body):
            kept.append(statement)
            edits.append(replace(module, statement, "pass"))
            continue
        edit = remove_statement(module, statement)
        if edit is None:
            return None
        edits.append(edit)
    return edits
