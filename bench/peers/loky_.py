"""loky, the executor under joblib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import WORKERS, Entry
from .executor import FuturesPool


@contextmanager
def open_executor() -> Iterator[FuturesPool]:
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=WORKERS, timeout=600)
    try:
        yield FuturesPool(executor)
    finally:
        executor.shutdown(wait=True)


ENTRIES = [Entry("loky", "loky", open_executor, "https://loky.readthedocs.io/en/stable/API.html")]
