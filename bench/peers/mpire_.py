"""mpire's WorkerPool, with workers that stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import WORKERS, Entry
from .multiprocessing_ import ProcessPool

LINK = "https://sybrenjansen.github.io/mpire/master/getting_started.html"


@contextmanager
def open_pool() -> Iterator[ProcessPool]:
    from mpire import WorkerPool

    with WorkerPool(n_jobs=WORKERS, keep_alive=True, start_method="forkserver") as pool:
        yield ProcessPool(pool)


ENTRIES = [Entry("mpire", "mpire", open_pool, LINK)]
