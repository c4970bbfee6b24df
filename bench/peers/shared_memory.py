"""What people write by hand: ProcessPoolExecutor, and multiprocessing.shared_memory for arrays."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np

from . import WORKERS, Entry
from .executor import FuturesPool

LINK = "https://docs.python.org/3/library/multiprocessing.shared_memory.html"


class SharedArray(NamedTuple):
    """What travels instead of an array."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class HandWritten(FuturesPool):
    """The example of its documentation: a copy into a block, and the block's name to workers."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        super().__init__(executor)
        self._block: SharedMemory | None = None

    def share(self, array: Any) -> SharedArray:
        self.close()
        self._block = SharedMemory(create=True, size=array.nbytes)
        view = np.ndarray(array.shape, array.dtype, buffer=self._block.buf)
        np.copyto(view, array)
        return SharedArray(self._block.name, array.shape, array.dtype.str)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if any(isinstance(argument, SharedArray) for argument in arguments):
            return super().run(with_blocks, function, *arguments)
        return super().run(function, *arguments)

    def close(self) -> None:
        """The block of the generation before is closed and unlinked."""
        if self._block is not None:
            self._block.close()
            self._block.unlink()
            self._block = None


def with_blocks(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: attach, call, detach."""
    blocks = []
    seen = []
    for argument in arguments:
        if isinstance(argument, SharedArray):
            block = SharedMemory(name=argument.name)
            blocks.append(block)
            seen.append(np.ndarray(argument.shape, argument.dtype, buffer=block.buf))
        else:
            seen.append(argument)
    try:
        return function(*seen)
    finally:
        seen.clear()
        for block in blocks:
            block.close()


@contextmanager
def open_executor() -> Iterator[HandWritten]:
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as executor:
        pool = HandWritten(executor)
        try:
            yield pool
        finally:
            pool.close()


ENTRIES = [Entry("SharedMemory by hand", "multiprocessing", open_executor, LINK)]
