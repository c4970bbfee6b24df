"""Finding what cannot leave this process."""

from __future__ import annotations

import io
import logging
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from theus import stateless
from theus.tasks import encode_call


class Holder:
    def __init__(self, conn: Any) -> None:
        self.conn = conn


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


@pytest.fixture
def culprits(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """One of each kind, with the name of its type."""
    (tmp_path / "f").write_text("x")
    with (
        (tmp_path / "f").open() as text,
        (tmp_path / "f").open("rb") as binary,
        socket.socket() as connection,
    ):
        database = sqlite3.connect(":memory:")
        yield {
            "_thread.lock": threading.Lock(),
            "threading.Thread": threading.Thread(),
            "threading.Event": threading.Event(),
            "_io.TextIOWrapper": text,
            "_io.BufferedReader": binary,
            "socket.socket": connection,
            "sqlite3.Connection": database,
            "generator": (i for i in range(3)),
        }
        database.close()


KINDS = [
    "_thread.lock",
    "threading.Thread",
    "threading.Event",
    "_io.TextIOWrapper",
    "_io.BufferedReader",
    "socket.socket",
    "sqlite3.Connection",
    "generator",
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_where_it_sits(kind: str, culprits: dict[str, Any]) -> None:
    culprit = culprits[kind]
    places: dict[str, Any] = {
        "inputs['db'].conn": {"db": Holder(culprit)},
        "inputs['xs'][1]['y']": {"xs": [1, {"y": culprit}]},
        "inputs['s'].inner": {"s": Slotted(culprit)},
        "inputs['f'].closure['culprit']": {"f": lambda: culprit},
        "inputs['d'].defaults['x']": {"d": lambda x=culprit: x},
    }
    for path, inputs in places.items():
        with pytest.raises(stateless.StatelessnessError) as caught:
            encode_call((), {"fine": list(range(100)), **inputs})
        assert caught.value.path == path
        assert caught.value.type_name == kind
        assert path in str(caught.value)
        assert kind in str(caught.value)


def test_positional_arguments_are_named_too() -> None:
    with pytest.raises(stateless.StatelessnessError, match=r"args\[1\] is a _thread.lock"):
        encode_call((1, threading.Lock()), {"a": 1})


def test_what_pickles_passes() -> None:
    encode_call((), {"logger": logging.getLogger("x"), "buffer": io.StringIO("text")})
    encode_call((), {"out": lambda: print("x", file=sys.stdout)})


def test_a_long_list_is_searched_by_halves() -> None:
    items: list[Any] = list(range(20_000))
    items[13_579] = threading.Lock()
    with pytest.raises(stateless.StatelessnessError, match=r"inputs\['xs'\]\[13579\] is a"):
        encode_call((), {"xs": items})


def test_cycles_end() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    cycle["lock"] = threading.Lock()
    with pytest.raises(stateless.StatelessnessError, match="_thread.lock"):
        encode_call((), {"c": cycle})


def test_other_failures_stay_what_they_are() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        encode_call((), {"odd": Odd()})


def test_a_failure_of_unknown_kind_still_has_its_place() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise TypeError("cannot be pickled, by its own word")

    with pytest.raises(stateless.StatelessnessError, match="by its own word") as caught:
        encode_call((), {"deep": [{"odd": Odd()}]})
    assert caught.value.path == "inputs['deep'][0]['odd']"


def test_arrays_are_not_copied_for_the_search() -> None:
    big = np.zeros(1 << 22)
    assert stateless.pickles([big])
