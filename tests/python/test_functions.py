"""Functions as workers get them."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import EngineFactory
from theus import (
    LargeArgumentWarning,
    StatelessnessError,
    StatelessnessWarning,
    TaskContext,
    TheusEngine,
    functions,
    process,
)
from theus.code_hash import code_hash
from theus.context_parameter import passes_ctx
from theus.functions import record_of
from theus.worker.functions import load_by_value

FACTOR = 2


def scaled(x: int, by: int = 3) -> int:
    return x * by * FACTOR


def make_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, source: str
) -> types.ModuleType:
    """A module that can really be imported."""
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__(name)


def test_an_importable_function_goes_by_name_with_a_spare_copy() -> None:
    module, qualname, digest, spare, ctx = record_of(scaled)
    assert (module, qualname, ctx) == (__name__, "scaled", False)
    assert digest == code_hash(scaled)
    assert load_by_value(spare)(2) == 12
    assert load_by_value(spare) is not scaled


def test_code_keeps_the_name_of_its_file() -> None:
    """Else a worker's traceback names no file, and shows no line of it."""

    def outer() -> Callable[[], int]:
        return lambda: 1

    arrived = load_by_value(record_of(outer)[3])
    assert arrived.__code__.co_filename == __file__
    assert arrived.__code__.co_firstlineno == outer.__code__.co_firstlineno
    assert arrived().__code__.co_filename == __file__, "of code within code"


def test_functions_that_are_returned_or_passed_keep_it_too(engine: TheusEngine) -> None:
    made = engine.run(lambda: lambda: 1)
    assert made.__code__.co_filename == __file__
    assert engine.run(lambda f: f.__code__.co_filename, lambda: 1) == __file__


def test_arrays_beside_a_function_arrive_writable(engine: TheusEngine) -> None:
    locked = np.arange(3.0)
    locked.flags.writeable = False
    assert engine.run(lambda f, a: a.flags.writeable, abs, locked)
    assert engine.run(lambda f, a: a.flags.writeable, lambda: 1, locked)


def test_others_go_by_value() -> None:
    captured = 5
    for fn in (lambda x: x + captured, partial(scaled, by=1), pow):
        record = record_of(fn)
        assert record[0] is None
        assert callable(load_by_value(pickle.loads(pickle.dumps(record))[3]))
    assert load_by_value(record_of(lambda x: x + captured)[3])(1) == 6


def test_the_hash_tells_what_a_function_does() -> None:
    def variant(source: str) -> Callable[..., Any]:
        namespace: dict[str, Any] = {}
        exec(source, namespace)
        return namespace["f"]  # type: ignore[no-any-return]

    base = "def f(x, y=1):\n    return [x + 2 for _ in {1, 2}]"
    same = code_hash(variant(base))
    assert same == code_hash(variant("\n\n" + base)), "moved lines do not count"
    for other in (
        base.replace("+ 2", "+ 3"),
        base.replace("y=1", "y=2"),
        base.replace("y=1", "*, y=1"),
        base.replace("{1, 2}", "{1, 3}"),
        base.replace("x", "z"),
    ):
        assert code_hash(variant(other)) != same, other
    assert code_hash(pow) == ""


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda ctx: 1, True),
        (lambda ctx, x: 1, True),
        (lambda x: 1, False),
        (lambda *ctx: 1, False),
        (lambda **ctx: 1, False),
        (lambda *, ctx: 1, False),
        (lambda: 1, False),
        (pow, False),
        (process(lambda context, x: 1), True),
        (process(lambda *args: 1), True),
        (process(lambda: 1), False),
    ],
)
def test_who_gets_the_context(fn: Any, expected: bool) -> None:
    assert passes_ctx(fn) is expected


def test_an_annotation_asks_for_the_context() -> None:
    def by_name(context: TaskContext) -> None: ...

    def by_type(context): ...  # type: ignore[no-untyped-def]

    by_type.__annotations__["context"] = TaskContext
    assert passes_ctx(by_name)
    assert passes_ctx(by_type)


def test_what_cannot_leave_is_named_before_anything_is_sent(engine: TheusEngine) -> None:
    lock = threading.Lock()
    with pytest.raises(StatelessnessError, match=r"closure\['lock'\] is a _thread.lock"):
        engine.run(lambda: lock)
    handle = Path(__file__).open()  # noqa: SIM115
    namespace: dict[str, Any] = {"__name__": "__main__", "log_file": handle}
    exec("def uses_global():\n    return log_file", namespace)
    with pytest.raises(StatelessnessError, match=r"globals\['log_file'\] is a _io.TextIOWrapper"):
        engine.run(namespace["uses_global"])
    handle.close()
    with pytest.raises(StatelessnessError, match="ctx.heavy"):
        engine.run(lambda: engine)
    assert engine.run(pow, 2, 3) == 8, "the pool is untouched"


def test_state_of_an_importable_module_is_a_warning(
    engine: TheusEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = (
        "import sqlite3\ndb = sqlite3.connect(':memory:')\n"
        "def query():\n    return db.execute('select 41 + 1').fetchone()[0]\n"
    )
    module = make_module(monkeypatch, tmp_path, "with_connection", source)
    with pytest.warns(StatelessnessWarning, match="with_connection.db, a sqlite3.Connection"):
        record = record_of(module.query)
    assert record[3] is None, "there is no spare copy; workers import it"
    module.db.close()


def test_a_large_capture_is_worth_a_word_and_not_a_spare_copy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    array = np.ones(1 << 18)
    with pytest.warns(LargeArgumentWarning, match="engine.heavy"):
        record = record_of(lambda: array.sum())
    stream, buffers = record[3]
    assert len(stream) < 10_000
    assert sum(b.raw().nbytes for b in buffers) == array.nbytes
    source = "import numpy as np\ntable = np.ones(1 << 18)\ndef f():\n    return table.sum()\n"
    module = make_module(monkeypatch, tmp_path, "with_table", source)
    with pytest.warns(LargeArgumentWarning, match="with_table.table, an array of 2,097,152 bytes"):
        assert record_of(module.f)[3] is None


class Counter:
    """Counts how often a function was defined anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: list[tuple[Any, ...]] = []
        original = functions.record_of

        def counting(fn: Any, **options: Any) -> Any:
            self.records.append(original(fn, **options))
            return self.records[-1]

        monkeypatch.setattr(functions, "record_of", counting)


def test_a_function_is_sent_once(engine: TheusEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(monkeypatch)
    assert [engine.run(scaled, i) for i in range(5)] == [6 * i for i in range(5)]
    assert len(counter.records) == 1


def test_changes_are_noticed(engine: TheusEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(monkeypatch)
    step = 1

    def add(x: int) -> int:
        return x + step

    assert engine.run(add, 1) == 2
    step = 10
    assert engine.run(add, 1) == 11
    add.__defaults__ = (5,)
    assert engine.run(add) == 15
    assert len(counter.records) == 3


def test_a_global_that_was_bound_anew_counts(
    make_engine: EngineFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "LIMIT = 1\ndef helper():\n    return LIMIT\ndef limit():\n    return helper()\n"
    module = make_module(monkeypatch, tmp_path, "with_limit", source)
    engine = make_engine()
    assert engine.run(module.limit) == 1
    module.LIMIT = 2
    assert engine.run(module.limit) == 2, "a worker's own copy of the module says 1"
    assert engine.run(module.limit) == 2


def test_a_reloaded_function_runs_as_it_is_here(
    make_engine: EngineFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "def helper():\n    return 1\ndef f():\n    return helper()\n"
    module = make_module(monkeypatch, tmp_path, "reloaded", source)
    engine = make_engine()
    assert engine.run(module.f) == 1
    changed = "def helper():\n    return 22\ndef f():\n    return helper() + 0\n"
    exec(compile(changed, module.__file__ or "", "exec"), module.__dict__)
    assert engine.run(module.f) == 22


def test_a_module_that_workers_cannot_find_travels_along(
    engine: TheusEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its directory came onto sys.path after the engine was opened."""
    source = "def helper():\n    return 7\ndef f():\n    return helper()\n"
    module = make_module(monkeypatch, tmp_path, "found_late", source)
    assert engine.run(module.f) == 7


def test_the_cache_keeps_no_function_alive(engine: TheusEngine) -> None:
    def use_one() -> weakref.ref[Any]:
        def recursive(n: int) -> int:
            return 0 if n == 0 else 1 + recursive(n - 1)

        assert engine.run(recursive, 3) == 3
        return weakref.ref(recursive)

    gone = use_one()
    gc.collect()
    assert gone() is None


def test_a_callable_object_is_sent_as_it_is_now(engine: TheusEngine) -> None:
    class Scale:
        factor = 1

        def __call__(self, x: int) -> int:
            return x * self.factor

    scale = Scale()
    assert engine.run(scale, 3) == 3
    scale.factor = 5
    assert engine.run(scale, 3) == 15
