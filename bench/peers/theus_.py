"""theus itself, as the README shows it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import theus_work

from . import WORKERS, Entry

if TYPE_CHECKING:
    from theus import TheusEngine


class Theus:
    """An engine, with the calls of its plain functions."""

    nothing = staticmethod(theus_work.nothing_with_ctx)

    def __init__(self, engine: TheusEngine) -> None:
        self.engine = engine
        self._keys = itertools.count()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.engine.run(function, *arguments)

    async def execute(self, function: Callable[..., Any]) -> Any:
        return await self.engine.execute(function)

    def gather(self, function: Callable[[], Any], times: int) -> None:
        for future in [self.engine.submit(function) for _ in range(times)]:
            future.result()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self.engine.map(function, items))

    def share(self, array: Any) -> Any:
        return self.engine.heavy.put(f"shared{next(self._keys)}", array)


@contextmanager
def open_engine() -> Iterator[Theus]:
    from theus import TheusEngine  # here, as other entries have it: a program's start contains it

    with TheusEngine(workers=WORKERS) as engine:
        yield Theus(engine)


ENTRIES = [Entry("theus", "theus", open_engine, "README.md")]
