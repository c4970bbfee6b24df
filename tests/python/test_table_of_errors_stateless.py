"""What a user does, and what they get: things that belong to one process, wherever they are put.

The error says where the culprit is, what it is and what to do; it comes before anything is sent,
and leaves the pool as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import os
import socket
import sqlite3
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jobs
from shared_engine import pool_untouched
from theus import (
    StatelessnessError,
    StatelessnessWarning,
    StateUpdate,
    TheusEngine,
    process,
)

Engine = TheusEngine


@pytest.fixture(scope="module")
def engine(shared_engine: TheusEngine) -> TheusEngine:
    return shared_engine


@contextlib.contextmanager
def a_generator() -> Iterator[Any]:
    yield (n for n in range(3))


@contextlib.contextmanager
def a_lock() -> Iterator[Any]:
    yield threading.Lock()


@contextlib.contextmanager
def a_thread() -> Iterator[Any]:
    yield threading.Thread(target=print)


# Each with the name of its type and a word of the advice.
CULPRITS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "lock": (a_lock, "_thread.lock", "compare-and-swap"),
    "open file": (
        functools.partial(open, os.devnull),
        "_io.TextIOWrapper",
        "Open it inside the process",
    ),
    "binary file": (
        functools.partial(open, os.devnull, "rb"),
        "_io.BufferedReader",
        "Open it inside the process",
    ),
    "socket": (socket.socket, "socket.socket", "Open it inside the process"),
    "database": (
        lambda: contextlib.closing(sqlite3.connect(":memory:")),
        "sqlite3.Connection",
        "Open it inside the process",
    ),
    "generator": (a_generator, "generator", "list"),
    "thread": (a_thread, "threading.Thread", "lives in this process"),
}


class Holder:
    """An object of the user's that has the culprit in an attribute."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn


def in_inputs(engine: Engine, culprit: Any) -> None:
    engine.run(jobs.nothing, db=Holder(culprit))


def in_positional_inputs(engine: Engine, culprit: Any) -> None:
    engine.submit(jobs.nothing, 1, [culprit])


def in_awaited_inputs(engine: Engine, culprit: Any) -> None:
    asyncio.run(engine.execute(jobs.nothing, deep={"a": [0, culprit]}))


def in_map(engine: Engine, culprit: Any) -> None:
    list(engine.map(jobs.nothing, [1, culprit], chunksize=2))


def in_context(engine: Engine, culprit: Any) -> None:
    TheusEngine({"domain": {"conn": culprit}})


def in_context_object(engine: Engine, culprit: Any) -> None:
    TheusEngine(types.SimpleNamespace(setup=Holder(culprit)))


def in_data(engine: Engine, culprit: Any) -> None:
    engine.compare_and_swap(engine.state.version, data={"a.b": [culprit]})


def in_state_update(engine: Engine, culprit: Any) -> None:
    @process
    def host_process(ctx: Any) -> StateUpdate:
        return StateUpdate(data={"conn": culprit})

    engine.run(host_process)


def in_put(engine: Engine, culprit: Any) -> None:
    engine.heavy.put("k", culprit)


def in_list_put(engine: Engine, culprit: Any) -> None:
    engine.heavy["k"] = [[culprit]]


def in_closure(engine: Engine, culprit: Any) -> None:
    def uses() -> str:
        return repr(culprit)

    engine.run(uses)


def in_default(engine: Engine, culprit: Any) -> None:
    engine.run(lambda conn=culprit: repr(conn))


def in_partial(engine: Engine, culprit: Any) -> None:
    engine.run(functools.partial(jobs.nothing, conn=culprit))


def in_global(engine: Engine, culprit: Any) -> None:
    """A global of a script or notebook, which a function there uses."""
    script: dict[str, Any] = {"__name__": "__main__", "conn": culprit}
    exec("def uses():\n    return repr(conn)", script)
    engine.run(script["uses"])


# Where the error must say that it is.
PLACES: dict[Callable[[Engine, Any], None], str] = {
    in_inputs: "inputs['db'].conn",
    in_positional_inputs: "args[1][0]",
    in_awaited_inputs: "inputs['deep']['a'][1]",
    in_map: "items[1][0]",
    in_context: "data['domain']['conn']",
    in_context_object: "data['setup'].conn",
    in_data: "data['a.b'][0]",
    in_state_update: "data['conn']",
    in_put: "heavy['k']",
    in_list_put: "heavy['k'][0][0]",
    in_closure: ".closure['culprit']",
    in_default: ".defaults['conn']",
    in_partial: ".keywords['conn']",
    in_global: "uses.globals['conn']",
}


@pytest.mark.parametrize("kind", CULPRITS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_what_belongs_to_a_process_is_refused(
    engine: Engine, place: Callable[[Engine, Any], None], kind: str
) -> None:
    make, type_name, advice = CULPRITS[kind]
    version = engine.state.version
    with pool_untouched(engine), make() as culprit:
        with pytest.raises(StatelessnessError) as caught:
            place(engine, culprit)
        assert isinstance(caught.value, TypeError)
        assert PLACES[place] in caught.value.path
        assert caught.value.type_name.removeprefix("_") == type_name.removeprefix("_")
        text = str(caught.value)
        assert text.startswith(caught.value.path)
        assert type_name in text
        assert advice in text
        # A traceback's frames would hold the culprit.
        caught.value.__traceback__ = None
        del caught
    assert engine.state.version == version, "something was committed"
    assert "k" not in engine.heavy


def test_an_engine_that_was_refused_its_context_leaves_no_pool() -> None:
    with pytest.raises(StatelessnessError, match=r"data\['lock'\]"):
        TheusEngine({"lock": threading.Lock()})


def test_what_pickles_passes(engine: Engine) -> None:
    logger = logging.getLogger("theus.test.table")
    with pool_untouched(engine):
        assert engine.run(lambda log: log.name, log=logger) == logger.name
        assert engine.run(lambda: logger.name) == logger.name
        assert engine.run(jobs.echo, io.BytesIO(b"data")).getvalue() == b"data"
        assert engine.run(jobs.echo, Path("a/b")) == Path("a/b")


def test_a_connection_of_an_importable_module_is_a_warning(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_with_connection.py").write_text(
        textwrap.dedent(
            """
            import sqlite3

            CONNECTION = sqlite3.connect(":memory:")

            def answer():
                return CONNECTION.execute("select 6 * 7").fetchone()[0]
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import module_with_connection  # type: ignore[import-not-found]

    warned = pytest.warns(StatelessnessWarning, match=r"CONNECTION.*sqlite3\.Connection")
    with TheusEngine(workers=1) as fresh, warned:  # one that has this directory on its path
        assert fresh.run(module_with_connection.answer) == 42
    module_with_connection.CONNECTION.close()
    del sys.modules["module_with_connection"]
