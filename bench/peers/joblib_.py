"""joblib: Parallel with its default backend, and its automatic memory maps for large arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from work import nothing

from . import WORKERS, Entry

LINK = "https://joblib.readthedocs.io/en/stable/parallel.html"


class Joblib:
    """One Parallel object, kept as its documentation says for many calls."""

    nothing = staticmethod(nothing)

    def __init__(self, parallel: Any) -> None:
        from joblib import delayed

        self._parallel = parallel
        self._delayed = delayed

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._parallel([self._delayed(function)(*arguments)])[0]

    def gather(self, function: Callable[[], Any], times: int) -> None:
        self._parallel(self._delayed(function)() for _ in range(times))

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        results: list[Any] = self._parallel(self._delayed(function)(item) for item in items)
        return results

    def share(self, array: Any) -> Any:
        return array  # above 1 MB it dumps it to a file, which workers map


@contextmanager
def open_parallel() -> Iterator[Joblib]:
    from joblib import Parallel
    from joblib.externals.loky import get_reusable_executor

    with Parallel(n_jobs=WORKERS) as parallel:
        yield Joblib(parallel)
    get_reusable_executor().shutdown(wait=True)


ENTRIES = [Entry("joblib", "joblib", open_parallel, LINK)]
