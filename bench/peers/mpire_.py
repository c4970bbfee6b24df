"""mpire's WorkerPool, with workers that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from . import WORKERS, Entry

LINK = "https://sybrenjansen.github.io/mpire/master/getting_started.html"


class Mpire:
    """A pool, with its functions for single calls."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.apply(function, arguments)

    def gather(self, function: Callable[[], Any], times: int) -> None:
        for result in [self._pool.apply_async(function) for _ in range(times)]:
            result.get()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        results: list[Any] = self._pool.map(function, items)
        return results

    def share(self, array: Any) -> Any:
        return array  # it is pickled for every call


@contextmanager
def open_pool() -> Iterator[Mpire]:
    from mpire import WorkerPool

    with WorkerPool(n_jobs=WORKERS, keep_alive=True, start_method="forkserver") as pool:
        yield Mpire(pool)


ENTRIES = [Entry("mpire", "mpire", open_pool, LINK)]
