"""Exceptions and results that are hard to bring home: each costs its own task only.

The workers are the same afterwards, but where a test says that one had to be ended.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import nasty_exceptions
import nasty_results
from shared_engine import pool_untouched
from theus import RemoteError, TaskTimeout, TheusEngine

NOT_HERE = "(raised in a worker, and not to be had here as itself)"
# What a message, a name and a traceback may take at most; see worker/failures.py.
MESSAGE, NAME, TRACEBACK = 4 << 10, 450, 33 << 10

# A text of 1 GiB and copies of it that Python's own traceback module makes.
AVAILABLE = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
needs_memory = pytest.mark.skipif(
    AVAILABLE is None or int(AVAILABLE[1]) < 4 << 20, reason="it takes 3 GiB"
)
needs_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with Python 3.11")


@pytest.fixture(scope="module")
def engine(shared_engine: TheusEngine) -> TheusEngine:
    return shared_engine


def raised(engine: TheusEngine, function: Any, *arguments: Any) -> BaseException:
    """What a task ended with; the pool is as it was."""
    with pool_untouched(engine):
        error = engine.submit(function, *arguments).exception(60)
    assert error is not None
    trace = getattr(error.__cause__, "traceback", None)
    assert isinstance(trace, str)
    assert len(trace.encode("utf-8", "replace")) <= TRACEBACK
    return error


# ---- exceptions ----------------------------------------------------------------------------------


HOST = os.getpid()


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        ("TwoArguments", ("two", 2), "two"),
        ("TwoArguments", ("a\0b\udcff", 2), "a\0b\\udcff"),
        ("ReducesTo", (3,), "reduces to something else"),
        ("ReducesTo", ((),), "reduces to something else"),
        ("ReducesTo", ((ValueError, ("another",)),), "reduces to something else"),
        ("ReducesTo", ((len, (3,)),), "reduces to something else"),
        ("RefusesToReduce", (ValueError,), "refuses to reduce"),
        ("RefusesToReduce", (SystemExit,), "refuses to reduce"),
        ("RefusesToReduce", (RecursionError,), "refuses to reduce"),
        ("DiffersInHost", (HOST, "raises"), "differs in the host"),
        ("DiffersInHost", (HOST, "leaves"), "differs in the host"),
        ("DiffersInHost", (HOST, "is no exception"), "differs in the host"),
        ("DiffersInHost", (HOST, "would interrupt"), "differs in the host"),
    ],
)
def test_exceptions_that_do_not_travel(
    engine: TheusEngine, kind: str, arguments: Any, text: str
) -> None:
    error = raised(engine, nasty_exceptions.raise_it, kind, *arguments)
    assert isinstance(error, RemoteError)
    assert error.type_name == f"nasty_exceptions.{kind}"
    assert error.text == text
    assert str(error) == f"nasty_exceptions.{kind}: {text} {NOT_HERE}"


@pytest.mark.parametrize(
    "kind", ["Mute", "Leaves", "SaysLies", "SaysNumber", "Grouped", "Masked", "Unassignable"]
)
def test_exceptions_whose_own_methods_fail(engine: TheusEngine, kind: str) -> None:
    """What they say of themselves is no use, but they can travel."""
    error = raised(engine, nasty_exceptions.raise_it, kind)
    assert type(error) is getattr(nasty_exceptions, kind)


def test_an_exception_that_is_a_frozen_dataclass(engine: TheusEngine) -> None:
    """What loads a pickle sets its fields, and that is refused."""
    error = raised(engine, nasty_exceptions.raise_it, "Frozen", 3)
    assert isinstance(error, RemoteError)
    assert str(error) == f"nasty_exceptions.Frozen: 3 {NOT_HERE}"


def test_an_exception_whose_class_cannot_be_named(engine: TheusEngine) -> None:
    """A pickle has classes by their names."""
    error = raised(engine, nasty_exceptions.raise_it, "Nameless")
    assert isinstance(error, RemoteError)
    assert str(error) == f"nasty_exceptions.Nameless {NOT_HERE}"


@needs_memory
def test_a_text_of_a_gigabyte_is_cut(engine: TheusEngine) -> None:
    error = raised(engine, nasty_exceptions.raise_it, "SaysMuch", "text", 1)
    assert isinstance(error, RemoteError)
    assert len(error.text) <= MESSAGE
    assert "characters left out" in error.text


def test_long_names_are_cut(engine: TheusEngine) -> None:
    error = raised(engine, nasty_exceptions.raise_long_name)
    assert isinstance(error, RemoteError)
    assert len(error.type_name) <= NAME


def test_a_class_that_only_the_worker_has(engine: TheusEngine) -> None:
    error = raised(engine, nasty_exceptions.raise_from_a_module_of_the_worker)
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.text) == ("only_in_this_worker.Lost", "far away")
    assert "raise module.Lost" in error.traceback


def test_an_exception_that_holds_what_cannot_be_pickled(engine: TheusEngine) -> None:
    error = raised(engine, nasty_exceptions.raise_with_lock)
    assert isinstance(error, RemoteError)
    assert str(error) == f"ValueError: holds a lock {NOT_HERE}"


def test_causes_in_a_circle(engine: TheusEngine) -> None:
    error = raised(engine, nasty_exceptions.raise_cycle)
    assert type(error) is ValueError
    assert str(error) == "first"
    assert "ValueError: second" in str(error.__cause__)


def test_a_long_chain_of_causes_is_cut(engine: TheusEngine) -> None:
    error = raised(engine, nasty_exceptions.raise_chain, 10_000)
    assert type(error) is ValueError
    assert str(error) == "cause 9999"
    assert "left out" in str(error.__cause__)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
def test_what_would_end_a_process(engine: TheusEngine, kind: type[BaseException]) -> None:
    error = raised(engine, nasty_exceptions.raise_base, kind)
    assert isinstance(error, RemoteError)
    assert str(error) == f"{kind.__name__}: raised in a task {NOT_HERE}"


@needs_groups
def test_groups(engine: TheusEngine) -> None:
    error: Any = raised(engine, nasty_exceptions.raise_group)
    assert type(error).__name__ == "ExceptionGroup"
    assert [type(e).__name__ for e in error.exceptions] == ["ValueError", "ExceptionGroup"]
    error = raised(engine, nasty_exceptions.raise_base_group)
    assert isinstance(error, RemoteError)
    assert error.type_name == "BaseExceptionGroup"
    assert "SystemExit: 3" in error.traceback


@needs_groups
def test_groups_nested_without_end(engine: TheusEngine) -> None:
    error = raised(engine, nasty_exceptions.raise_deep_group, 5_000)
    assert isinstance(error, RemoteError)
    assert error.type_name == "ExceptionGroup"


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Endless", "LeavesWhenPickled"])
def test_results_that_do_not_pickle(engine: TheusEngine, kind: str) -> None:
    error = raised(engine, nasty_results.give, kind)
    assert type(error) is TypeError
    assert str(error).startswith("the result of nasty_results.give cannot be sent to the host: a ")
    assert str(error).endswith("lists or dicts of them.")


@pytest.mark.parametrize("length", [0, pytest.param(1 << 30, marks=needs_memory)])
def test_the_path_to_what_does_not_pickle_is_bounded(engine: TheusEngine, length: int) -> None:
    error = raised(engine, nasty_results.give_under_key, length)
    assert type(error) is TypeError
    assert "a _thread.lock at result[" in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit, ImportError])
def test_results_that_do_not_load_in_the_host(
    engine: TheusEngine, kind: type[BaseException]
) -> None:
    with pool_untouched(engine), pytest.raises(RemoteError) as caught:
        engine.run(nasty_results.give, "LoadsBadly", HOST, kind)
    assert str(caught.value) == (
        "the task ended well, but its result cannot be loaded in this process "
        f"({kind.__name__}: on purpose). Its class has to be importable here, and what its pickle "
        "calls has to succeed; or return plain data: numbers, text, arrays, and lists or dicts of "
        "them."
    )
    assert caught.value.type_name == kind.__name__
    assert type(caught.value.__cause__) is kind


def test_recursive_structures_arrive(engine: TheusEngine) -> None:
    with pool_untouched(engine):
        table = engine.run(nasty_results.give_recursive)
        assert table["table"] is table
        assert table["items"][1] is table["items"]
        cycle = engine.run(nasty_results.give, "Cycle")
        assert cycle.me is cycle
        assert cycle.all[0] is cycle
        assert cycle.all[1]["me"] is cycle


@pytest.mark.parametrize("text", ["\0", "a\0b" * 40_000, "\ud800", "\udcff\0" * 40_000, ""])
def test_texts_of_any_characters_arrive(engine: TheusEngine, text: str) -> None:
    with pool_untouched(engine):
        assert engine.run(str, text) == text
        assert engine.run(dict, [(text, [text])]) == {text: [text]}


def test_a_result_that_takes_for_ever_to_pickle(engine: TheusEngine) -> None:
    own = TheusEngine(workers=1)
    with own, pytest.raises(TaskTimeout, match="give ran longer than its timeout of 500ms"):
        own.run(nasty_results.give, "Slow", timeout=0.5)


# ---- one item of a batch -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arguments", "error"),
    [
        ("Endless", (), TypeError),
        ("LeavesWhenPickled", (), TypeError),
        ("LoadsBadly", (HOST, ValueError), RemoteError),
        ("LoadsBadly", (HOST, SystemExit), RemoteError),
    ],
)
@pytest.mark.parametrize("bad", [0, 5, 9])
def test_a_bad_result_costs_no_item_before_it(
    engine: TheusEngine, bad: int, kind: str, arguments: Any, error: type[Exception]
) -> None:
    values: list[Any] = []  # what is there when it raises stays there
    with pool_untouched(engine):
        results = engine.map(give_or, range(10), [(bad, kind, *arguments)] * 10, chunksize=10)
        with pytest.raises(error):
            values.extend(results)
    assert values == [(number,) for number in range(bad)]


def give_or(number: int, rest: Any) -> Any:
    """The number in a tuple; one of them something bad."""
    return nasty_results.give_bad_at(number, *rest)


@pytest.mark.parametrize("bad", [0, 5, 9])
@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_bad_argument_costs_no_item_before_it(
    engine: TheusEngine, bad: int, kind: type[BaseException]
) -> None:
    values: list[Any] = []  # what is there when it raises stays there
    arguments = [Argument(number, kind if number == bad else None) for number in range(10)]
    wanted = ValueError if kind is ValueError else RemoteError
    with pool_untouched(engine), pytest.raises(wanted, match="on purpose"):
        values.extend(engine.map(number_of, arguments, chunksize=10))
    assert values == list(range(bad))


class Argument:
    """An argument that may refuse to be loaded in a worker."""

    def __init__(self, number: int, refuses: type[BaseException] | None) -> None:
        self.number = number
        self.refuses = refuses

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if self.refuses is not None:
            raise self.refuses("on purpose")


def number_of(argument: Argument) -> int:
    return argument.number


def test_values_of_a_batch_are_whole(engine: TheusEngine) -> None:
    """The two ways in which batches travel give the same."""
    plain = list(engine.map(abs, range(-50, 0), chunksize=7))
    assert plain == list(range(50, 0, -1))
    nested = list(engine.map(wrap, range(50), chunksize=7))
    assert nested == [{"number": [number]} for number in range(50)]


def wrap(number: int) -> Any:
    return {"number": [number]}
