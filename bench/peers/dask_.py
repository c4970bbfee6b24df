"""Dask's distributed scheduler on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from work import nothing

from . import WORKERS, Entry

LINK = "https://distributed.dask.org/en/stable/client.html"


class Dask:
    """A client; calls are not pure, or equal ones would be made once."""

    nothing = staticmethod(nothing)

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._client.submit(function, *arguments, pure=False).result()

    def gather(self, function: Callable[[], Any], times: int) -> None:
        self._client.gather([self._client.submit(function, pure=False) for _ in range(times)])

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        futures = self._client.map(function, list(items), pure=False, batch_size=1000)
        results: list[Any] = self._client.gather(futures)
        return results

    def share(self, array: Any) -> Any:
        return self._client.scatter(array, broadcast=True)


@contextmanager
def open_client() -> Iterator[Dask]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield Dask(client)


ENTRIES = [Entry("Dask", "distributed", open_client, LINK)]
