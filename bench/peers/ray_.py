"""Ray on one machine, with its object store for arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from work import nothing

from . import WORKERS, Entry

LINK = "https://docs.ray.io/en/latest/ray-core/tasks.html"


class Ray:
    """Remote functions, each made once."""

    nothing = staticmethod(nothing)

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: dict[Any, Any] = {}

    def _of(self, function: Callable[..., Any]) -> Any:
        if function not in self._remote:
            self._remote[function] = self._ray.remote(function)
        return self._remote[function]

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._ray.get(self._of(function).remote(*arguments))

    def gather(self, function: Callable[[], Any], times: int) -> None:
        remote = self._of(function)
        self._ray.get([remote.remote() for _ in range(times)])

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        from ray.util.multiprocessing import Pool

        with Pool(WORKERS) as pool:
            return list(pool.map(function, items))

    def share(self, array: Any) -> Any:
        return self._ray.put(array)


@contextmanager
def open_ray() -> Iterator[Ray]:
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        yield Ray(ray)
    finally:
        ray.shutdown()


ENTRIES = [Entry("Ray", "ray", open_ray, LINK)]
