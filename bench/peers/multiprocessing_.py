"""multiprocessing.Pool of the standard library."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool
from typing import Any

from work import nothing

from . import WORKERS, Entry

LINK = "https://docs.python.org/3/library/multiprocessing.html#module-multiprocessing.pool"


class ProcessPool:
    """A pool of processes that are forked from a server."""

    nothing = staticmethod(nothing)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.apply(function, arguments)

    def gather(self, function: Callable[[], Any], times: int) -> None:
        for result in [self._pool.apply_async(function) for _ in range(times)]:
            result.get()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return self._pool.map(function, items)

    def share(self, array: Any) -> Any:
        return array  # it is pickled for every call


@contextmanager
def open_pool() -> Iterator[ProcessPool]:
    with multiprocessing.get_context("forkserver").Pool(WORKERS) as pool:
        yield ProcessPool(pool)


ENTRIES = [Entry("multiprocessing.Pool", "multiprocessing", open_pool, LINK)]
