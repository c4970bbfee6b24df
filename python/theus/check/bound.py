"""Expressions whose value belongs to the process that makes it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .module import Module

__all__ = ["Bound", "bound", "parts"]


class Bound(NamedTuple):
    """What a value is, and what to do about it."""

    what: str
    advice: str


_LOCK = "A lock guards nothing in another process: leave it out, the state changes without locks."
_OPEN = "Open it inside the process, from its path or address."
_THREAD = "It lives in this process only: leave it out."
_QUEUE = "Send its items as a list, or give the process one item per call."

_MADE_BY = {
    **{
        f"threading.{name}": Bound(f"a threading.{name}", _LOCK)
        for name in ("Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore")
    },
    "threading.Barrier": Bound("a threading.Barrier", _LOCK),
    "threading.Thread": Bound("a thread", _THREAD),
    "threading.Timer": Bound("a thread", _THREAD),
    "threading.local": Bound("a threading.local", _THREAD),
    "_thread.allocate_lock": Bound("a lock", _LOCK),
    "subprocess.Popen": Bound("a child process", _THREAD),
    "concurrent.futures.ThreadPoolExecutor": Bound("a pool of threads", _THREAD),
    "concurrent.futures.ProcessPoolExecutor": Bound("a pool of processes", _THREAD),
    **{
        f"queue.{name}": Bound(f"a queue.{name}", _QUEUE)
        for name in ("Queue", "SimpleQueue", "LifoQueue", "PriorityQueue")
    },
    **dict.fromkeys(
        (
            *("builtins.open", "io.open", "io.FileIO", "os.fdopen", "gzip.open", "bz2.open"),
            *("lzma.open", "codecs.open", "tempfile.TemporaryFile", "tempfile.NamedTemporaryFile"),
        ),
        Bound("an open file", _OPEN),
    ),
    "mmap.mmap": Bound("a memory map", "Put the data into engine.heavy and read ctx.heavy."),
    "socket.socket": Bound("a socket", _OPEN),
    "socket.create_connection": Bound("a socket", _OPEN),
    "socket.create_server": Bound("a socket", _OPEN),
    **dict.fromkeys(
        (
            *("sqlite3.connect", "sqlite3.Connection", "psycopg2.connect", "psycopg.connect"),
            *("pymysql.connect", "MySQLdb.connect", "mysql.connector.connect", "duckdb.connect"),
        ),
        Bound("a database connection", _OPEN),
    ),
}
_ENGINE = Bound(
    "an engine",
    "A process reads ctx.heavy and ctx.state, and changes the state by what it returns.",
)
_GENERATOR = Bound("a generator", "Send its items as a list, or map over it: engine.map(fn, it).")


def bound(module: Module, expression: ast.AST) -> Bound | None:
    """What an expression is, if it surely belongs to the process that makes it."""
    found: Bound | None = None
    for origin in module.origins(expression):
        found = _bound(module, origin)
        if found is None:
            return None
    return found


def _bound(module: Module, node: ast.AST) -> Bound | None:
    if isinstance(node, ast.GeneratorExp):
        return _GENERATOR
    if not isinstance(node, ast.Call):
        return None
    if module.opens_engine(node):
        return _ENGINE
    name = module.called(node)
    if name == "contextlib.closing" and node.args:
        return bound(module, node.args[0])
    if name in _MADE_BY:
        return _MADE_BY[name]
    if isinstance(node.func, ast.Attribute):
        if node.func.attr == "open" and module.called(node.func.value) == "pathlib.Path":
            return Bound("an open file", _OPEN)
        if node.func.attr == "cursor":
            inner = bound(module, node.func.value)
            if inner is not None and inner.what == "a database connection":
                return Bound("a database cursor", "Fetch the rows and send those.")
    made = module.origins(node.func)
    if len(made) == 1 and isinstance(made[0], ast.FunctionDef) and _yields(module, made[0]):
        return _GENERATOR
    return None


def _yields(module: Module, function: ast.FunctionDef) -> bool:
    return not function.decorator_list and any(
        isinstance(node, (ast.Yield, ast.YieldFrom)) and module.function(node) is function
        for node in ast.walk(function)
    )


def parts(module: Module, value: ast.expr, path: str = "") -> Iterator[tuple[ast.expr, str]]:
    """A value and, where it is a display, what is in it."""
    yield value, path
    origins = module.origins(value)
    display = origins[0] if len(origins) == 1 else value
    if isinstance(display, (ast.List, ast.Tuple)):
        for index, item in enumerate(display.elts):
            yield from parts(module, item, f"{path}[{index}]")
    elif isinstance(display, ast.Dict):
        for key, item in zip(display.keys, display.values, strict=True):
            text = repr(key.value) if isinstance(key, ast.Constant) else "…"
            yield from parts(module, item, f"{path}[{text}]")
