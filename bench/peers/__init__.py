"""The tools that theus is compared with, each as its own documentation shows it.

What is not installed is left out, with a word. `requirements.txt` beside this file has them all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol

WORKERS = 2


class Peer(Protocol):
    """A pool of two worker processes."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it in a worker, and wait for what it gives."""

    def gather(self, function: Callable[[], Any], times: int) -> None:
        """Have so many calls under way at once, and wait for all."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Call it for each item."""

    def share(self, array: Any) -> Any:
        """What stands for an array among the arguments of `run`, by the tool's own best way."""


class Entry(NamedTuple):
    """A peer, and where its documentation shows what is done with it here."""

    name: str
    module: str  # that has to be installed
    open: Callable[[], AbstractContextManager[Peer]]
    link: str


def installed(entry: Entry) -> bool:
    return importlib.util.find_spec(entry.module) is not None


@contextmanager
def opened(entries: Iterable[Entry]) -> Iterator[dict[str, Peer]]:
    """All of them that are installed, by name."""
    with ExitStack() as stack:
        found = {}
        for entry in entries:
            if installed(entry):
                found[entry.name] = stack.enter_context(entry.open())
            else:
                print(f"({entry.name} is not installed, and left out)")
        yield found


def entries(names: Iterable[str] = ()) -> list[Entry]:
    """All peers, or those of the names."""
    from . import dask_, executor, joblib_, loky_, mpire_, multiprocessing_, ray_, theus_

    modules = (theus_, executor, multiprocessing_, loky_, joblib_, mpire_, ray_, dask_)
    every = [entry for module in modules for entry in module.ENTRIES]
    chosen = set(names)
    return [entry for entry in every if not chosen or entry.name in chosen]
