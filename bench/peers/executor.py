"""ProcessPoolExecutor of the standard library: spawn and forkserver."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from work import nothing

from . import WORKERS, Entry

LINK = "https://docs.python.org/3/library/concurrent.futures.html#processpoolexecutor-example"
# Its documentation: for very long iterables a large chunksize improves performance significantly.
LONG, CHUNK = 10_000, 1000


class FuturesPool:
    """Anything with the interface of concurrent.futures."""

    nothing = staticmethod(nothing)

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.executor.submit(function, *arguments).result()

    def gather(self, function: Callable[[], Any], times: int) -> None:
        for future in [self.executor.submit(function) for _ in range(times)]:
            future.result()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        items = list(items)
        chunk = CHUNK if len(items) > LONG else 1
        return list(self.executor.map(function, items, chunksize=chunk))

    def share(self, array: Any) -> Any:
        return array  # it is pickled for every call


@contextmanager
def open_executor(method: str) -> Iterator[FuturesPool]:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        yield FuturesPool(executor)


ENTRIES = [
    Entry(f"ProcessPoolExecutor ({method})", "concurrent", partial(open_executor, method), LINK)
    for method in ("spawn", "forkserver")
]
