"""The tools that theus is compared with, each as its own documentation shows it.

What is not installed is left out, with a word. `requirements.txt` beside this file has them all.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

WORKERS = 2
# What no tool can be faster than is measured like a peer, and told in parentheses.
FLOOR = "(floor)"


class Peer(Protocol):
    """A pool of two worker processes.

    Attributes:
        nothing: the function that does nothing, as users of this tool write it.
    """

    nothing: Callable[..., Any]

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it in a worker, and wait for what it gives."""

    def gather(self, function: Callable[[], Any], times: int) -> None:
        """Have so many calls under way at once, and wait for all."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Call it for each item."""

    def share(self, array: Any) -> Any:
        """What stands for an array among the arguments of `run`, by the tool's own best way."""


class Entry(NamedTuple):
    """A peer, and where its documentation shows what is done with it here.

    Attributes:
        name: in the tables.
        module: that has to be installed.
        open: a pool of it.
        link: what its use here follows.
        python: an interpreter of its own; None: the one that runs this.
    """

    name: str
    module: str
    open: Callable[[], AbstractContextManager[Any]]
    link: str
    python: str | None = None


def installed(entry: Entry) -> bool:
    if entry.python is not None:
        return os.path.exists(entry.python)
    return importlib.util.find_spec(entry.module) is not None


def entries(names: Iterable[str] = ()) -> list[Entry]:
    """All peers, or those of the names; the floors always."""
    from . import (
        dask_,
        executor,
        floors,
        joblib_,
        loky_,
        mpire_,
        multiprocessing_,
        ray_,
        rust_theus,
        shared_memory,
        theus_,
    )

    pools = (theus_, executor, multiprocessing_, shared_memory, loky_, joblib_, mpire_, ray_)
    every = [entry for module in (floors, *pools, dask_, rust_theus) for entry in module.ENTRIES]
    chosen = set(names)
    return [entry for entry in every if not chosen or entry.name in chosen or entry.name == FLOOR]


def entry_named(name: str) -> Entry:
    return next(entry for entry in entries() if entry.name == name)
