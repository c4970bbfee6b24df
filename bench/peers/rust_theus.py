"""The earlier Rust Theus, 3.0.25 from PyPI: a package of the same name, so in a venv of its own.

Its wheel needs CPython 3.13. A parallel call blocks its thread; heavy arrays lie in shared memory.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from work import nothing

from . import WORKERS, Entry

LINK = "https://pypi.org/project/theus/3.0.25/"
PYTHON = Path(__file__).resolve().parents[2] / "build" / "peers-3.13" / "bin" / "python"


class RustTheus:
    """An engine, and two threads to have two calls under way."""

    nothing = staticmethod(nothing)

    def __init__(self, engine: Any) -> None:
        import rust_theus_work as processes

        self._engine = engine
        self._keys = itertools.count()
        self._threads = ThreadPoolExecutor(WORKERS)
        for process in (processes.nothing, processes.first_of, processes.ones, processes.sort_sum):
            engine.register(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        inputs = dict(zip(("argument",), arguments, strict=False))
        return self._engine.execute_parallel(function.__name__, **inputs)

    def gather(self, function: Callable[[], Any], times: int) -> None:
        for call in [self._threads.submit(self.run, function) for _ in range(times)]:
            call.result()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self._threads.map(lambda item: self.run(function, item), items))

    def share(self, array: Any) -> str:
        key = f"shared{next(self._keys)}"  # it refuses a second array of the same name
        heavy = self._engine.heavy.alloc(key, array.shape, array.dtype)
        heavy[:] = array
        self._engine.compare_and_swap(self._engine.state.version, heavy={key: heavy})
        return key

    def close(self) -> None:
        self._threads.shutdown()
        self._engine.shutdown()


@contextmanager
def open_engine() -> Iterator[RustTheus]:
    os.environ["THEUS_POOL_SIZE"] = str(WORKERS)
    os.environ["THEUS_HEAP_SIZE"] = "4096"  # MiB; it gives none back before its end
    from theus import TheusEngine

    peer = RustTheus(TheusEngine())
    try:
        yield peer
    finally:
        peer.close()


ENTRIES = [Entry("Rust Theus 3.0.25", "theus_core", open_engine, LINK, str(PYTHON))]
