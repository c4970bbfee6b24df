"""TH005, TH011 to TH014: contracts, and what processes do against theirs."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ...names import ENGINE_OPTIONS
from ..arrays import is_array
from ..context import chain, domain_path, heavy_access, is_part, nodes
from ..findings import Finding
from ..module import Module, Process

__all__ = ["check"]

_OF_MAPPINGS = {"get", "keys", "items", "values", "pop", "popitem", "update", "setdefault", "clear"}
_OF_DICTS = frozenset(dir(dict)) | {"to_dict"}
_IN_PLACE = {"append", "extend", "insert", "remove", "sort", "reverse", "add", "discard"}
Path = list[str | None]


def check(module: Module) -> Iterator[Finding]:
    """All that concerns contracts."""
    for process in module.processes:
        yield from _data(module, process)
        yield from _shadows(module, process)
        if process.ctx is None:
            continue
        yield from _writes(module, process)
        if process.inputs:
            yield from _reads(module, process, process.inputs)


# ---- TH005 ---------------------------------------------------------------------------------------


def _data(module: Module, process: Process) -> Iterator[Finding]:
    if process.decorator is None:
        return
    given = {keyword.arg: keyword.value for keyword in process.decorator.keywords}
    given.update(zip(("inputs", "outputs"), process.decorator.args, strict=False))
    for what in ("inputs", "outputs"):
        value = given.get(what)
        if value is None:
            continue
        for part in _elements(module, value):
            if _is_data(module, part):
                yield module.finding(
                    "TH005",
                    part,
                    f"@process({what}=…) of {process.name!r} takes names, not data. Write names, "
                    f'{what}=["domain.rate", "heavy.prices"], and pass the data as arguments of '
                    "the call, large arrays through engine.heavy.",
                )


def _elements(module: Module, value: ast.expr) -> list[ast.expr]:
    origins = module.origins(value)
    if len(origins) == 1 and isinstance(origins[0], (ast.List, ast.Tuple, ast.Set)):
        listed = origins[0].elts
        return listed if origins[0] is value else [value] * any(_is_data(module, e) for e in listed)
    return [value]


def _is_data(module: Module, part: ast.expr) -> bool:
    origins = module.origins(part)
    origin = origins[0] if len(origins) == 1 else part
    if isinstance(origin, ast.Constant):
        return origin.value is not None and not isinstance(origin.value, str)
    if isinstance(origin, (ast.List, ast.Tuple)) and origin is not part:
        return any(_is_data(module, element) for element in origin.elts)
    return isinstance(origin, (ast.Dict, ast.Lambda, ast.DictComp)) or is_array(module, part)


# ---- TH014 ---------------------------------------------------------------------------------------


def _shadows(module: Module, process: Process) -> Iterator[Finding]:
    if not process.node.decorator_list or _runs_through_options(module, process):
        return
    for parameter in process.parameters():
        if parameter.arg in ENGINE_OPTIONS:
            yield module.finding(
                "TH014",
                parameter,
                f"process {process.name!r} has a parameter {parameter.arg!r}, which is an option "
                "of the engine and would never reach it. Rename the parameter, or set options "
                f"apart: engine.options({parameter.arg}=…).run({process.name}, …).",
            )


def _runs_through_options(module: Module, process: Process) -> bool:
    calls = [call for call in module.calls if call.process is process]
    views = [
        origin
        for call in calls
        for origin in module.origins(call.receiver)
        if isinstance(origin, ast.Call)
        and isinstance(origin.func, ast.Attribute)
        and origin.func.attr == "options"
    ]
    return bool(calls) and len(views) == len(calls)


# ---- TH011, TH012 --------------------------------------------------------------------------------


def _writes(module: Module, process: Process) -> Iterator[Finding]:
    for node in nodes(process):
        if isinstance(node, (ast.Assign, ast.Delete)):
            targets = [t for target in node.targets for t in _flat(target)]
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr not in _IN_PLACE:
                continue
            path = domain_path(module, process, node.func.value)
            if path is not None and len(path) > 1:
                yield from _write(module, process, node, path, direct=False)
            continue
        else:
            continue
        for target in targets:
            if isinstance(target, (ast.Attribute, ast.Subscript)):
                path = domain_path(module, process, target)
                if path is not None and len(path) > 1:
                    yield from _write(module, process, node, path, direct=len(path) == 2)


def _flat(target: ast.expr) -> list[ast.expr]:
    return list(target.elts) if isinstance(target, (ast.Tuple, ast.List)) else [target]


def _write(
    module: Module, process: Process, node: ast.AST, path: Path, *, direct: bool
) -> Iterator[Finding]:
    name = path[1]
    if not direct and (name is None or _may_be_argument(module, process, name)):
        return
    known = path[: path.index(None)] if None in path else path
    text = ".".join(part for part in known if part is not None)
    if process.parallel is True:
        yield module.finding(
            "TH011",
            node,
            f"parallel process {process.name!r} writes {text!r} through ctx.domain, which is "
            "read-only in workers. Return the value and name its path in outputs=[…].",
        )
    elif process.parallel is False and process.outputs is not None:
        required = any(p.arg == name for p in _required(process))
        if direct and required:
            yield module.finding(
                "TH012",
                node,
                f"process {process.name!r} writes ctx.domain.{name}, which is an argument of its "
                "own and hides what the state has under that name. Call the argument something "
                "else.",
            )
        elif not _covered(known, process.outputs, whole=None not in path):
            declared = f"its outputs {list(process.outputs)}" if process.outputs else "any outputs"
            yield module.finding(
                "TH012",
                node,
                f"process {process.name!r} writes {text!r}, which is not among {declared}. "
                f"Declare it: @process(outputs=[{text!r}]).",
            )


def _covered(path: Path, outputs: tuple[str, ...], *, whole: bool) -> bool:
    """Whether outputs cover a path, or may cover it where its end is not known."""
    for output in outputs:
        parts: Path = [*output.replace("\\.", "\0").split(".")]
        if path[: len(parts)] == parts:
            return True
        if not whole and parts[: len(path)] == path:
            return True
    return False


def _required(process: Process) -> list[ast.arg]:
    """Parameters that every call must give."""
    a = process.node.args
    positional = [*a.posonlyargs, *a.args]
    without = positional[: len(positional) - len(a.defaults)]
    named = [p for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True) if d is None]
    return [p for p in (*without, *named) if p is not process.ctx]


def _may_be_argument(module: Module, process: Process, name: str) -> bool:
    """Whether ``ctx.domain.<name>`` may be an argument of a call rather than the state's."""
    return (
        module.sends_unknown
        or name in module.keywords
        or name in (process.inputs or ())
        or process.node.args.kwarg is not None
        or any(parameter.arg == name for parameter in process.parameters())
    )


# ---- TH013 ---------------------------------------------------------------------------------------


def _reads(module: Module, process: Process, inputs: tuple[str, ...]) -> Iterator[Finding]:
    told: set[str] = set()
    for node in nodes(process):
        path, what = _read(module, process, node)
        if path is None or path in told or _declared(module, process, path, inputs):
            continue
        told.add(path)
        yield module.finding(
            "TH013",
            node,
            f"process {process.name!r} reads {what}, which is not among its inputs "
            f"{list(inputs)}. Declare it: inputs=[…, {path!r}].",
        )


def _read(module: Module, process: Process, node: ast.AST) -> tuple[str | None, str]:
    access = heavy_access(module, process, node)
    if access is not None:
        path = None if access.key is None else f"heavy.{access.key}"
        return path, f"ctx.heavy[{access.key!r}]"
    name: str | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        if node.func.attr == "get" and is_part(module, process, node.func.value, "domain"):
            value = module.constant(node.args[0])
            name = value if isinstance(value, str) else None
    elif isinstance(node, (ast.Attribute, ast.Subscript)) and _is_loaded(module, node):
        _, names = chain(module, node)
        if is_part(module, process, node.value, "domain"):
            name = names[-1]
            if isinstance(node, ast.Attribute) and name in _OF_MAPPINGS:
                name = None
        else:
            return _read_below(module, process, node)
    return (None, "") if name is None else (f"domain.{name}", f"ctx.domain[{name!r}]")


def _read_below(
    module: Module, process: Process, node: ast.Attribute | ast.Subscript
) -> tuple[str | None, str]:
    """What is read of a dict of ``ctx.domain`` of which the inputs name a part, further down."""
    path = domain_path(module, process, node)
    names = [] if path is None else [name for name in path if name is not None]
    above = ".".join(names[:-1])
    if path is None or len(names) < max(3, len(path)):
        return None, ""
    if isinstance(node, ast.Attribute) and names[-1] in _OF_DICTS:
        return None, ""
    if not any(name.startswith(f"{above}.") for name in process.inputs or ()):
        return None, ""
    place = "".join(f"[{name!r}]" for name in names[1:])
    return f"{above}.{names[-1]}", f"ctx.domain{place}"


def _is_loaded(module: Module, node: ast.Attribute | ast.Subscript) -> bool:
    # What is written below a name reads that name, and so does += of the name itself.
    return isinstance(node.ctx, ast.Load) or isinstance(module.parents[node], ast.AugAssign)


def _declared(module: Module, process: Process, path: str, inputs: tuple[str, ...]) -> bool:
    kind, _, name = path.partition(".")
    if kind == "heavy":
        return path in inputs
    named = (*inputs, *(process.outputs or ()))  # what it may write it may read as well
    return any(
        f"{n}.".startswith(f"{path}.") or f"{path}.".startswith(f"{n}.") for n in named
    ) or _may_be_argument(module, process, name.partition(".")[0])
