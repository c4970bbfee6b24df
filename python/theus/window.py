"""``engine.heavy.window``: the newest rows of a series that grows, as one array."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._core import Handle, core
from .allocation import layout_of, whole_number, with_room
from .arrays import ShmArray, memory_of
from .host_arrays import ArrayHandle, array_of
from .updates import c_text

__all__ = ["Window"]


class Window:
    """The newest rows of a series, published under one heavy key; `Heavy.window` makes it.

    Each published window is one contiguous array, and later rows never touch it.

    Attributes:
        key: what it is published under.
        rows: how many rows it shows, once there are so many.
        shape: the shape of a row.
        dtype: of its elements.
    """

    __slots__ = (
        "_added_within",
        "_engine",
        "_handle",
        "_lock",
        "_publish",
        "_within",
        "dtype",
        "key",
        "rows",
        "shape",
    )

    def __init__(
        self,
        engine: int,
        key: str,
        dtype: np.dtype[Any],
        rows: int,
        shape: Sequence[int],
        publish: Callable[[ShmArray], int],
    ) -> None:
        rows = whole_number(rows, "rows", least=1)
        descr, itemsize, shape, nbytes = layout_of(shape, dtype)
        name = c_text(key, "key")
        handle = with_room(
            engine,
            2 * rows * nbytes,
            lambda: core().window_open(engine, name, descr, itemsize, shape, rows),
        )
        self._handle = Handle(handle)
        self._engine = engine
        self._publish = publish
        # Held while rows are added and published, so that windows are published in the order of
        # their rows. Reentrant for a handler of a signal that appends in the midst of an append.
        self._lock = threading.RLock()
        self._within = 0  # appends of the thread that holds it
        self._added_within = False  # and that the outermost has yet to publish
        self.key = key
        self.rows = rows
        self.shape = tuple(shape)
        self.dtype = dtype.base
        self.append(np.empty((0, *self.shape), self.dtype))

    def append(self, rows: Any) -> ShmArray:
        """Add one row, or several, and publish the window that ends with them.

        Args:
            rows: what numpy makes an array of: of the shape of a row, or with one more axis in
                front. It is converted to the window's dtype, and copied.

        An interrupt (Ctrl-C) may leave rows that are not published before the next append. An
        append in a handler that interrupts another one is published by that one.

        Returns:
            The window, read-only: the newest `rows` rows, the last one the newest; fewer as long
            as there have not been more.

        Raises:
            ValueError: the shape fits neither a row nor several.
            HeapFull: there is no room; then nothing was appended.
            EngineClosed: the engine was closed.

        Example:
            >>> ticks = engine.heavy.window("ticks", np.float64, rows=1000, shape=(2,))
            >>> ticks.append([101.5, 3.0])
            >>> ticks.append(np.zeros((50, 2)))
        """
        data = np.asarray(rows, self.dtype, order="C")
        if data.shape == self.shape:
            count = 1
        elif data.ndim == len(self.shape) + 1 and data.shape[1:] == self.shape:
            count = len(data)
        else:
            raise ValueError(
                f"the window heavy[{self.key!r}] takes a row of shape {self.shape}, or several "
                f"with one more axis in front, not an array of shape {data.shape}"
            )
        address = data.__array_interface__["data"][0]
        core()  # raises in a forked child, where the lock may be held for ever
        with self._lock:
            self._within += 1
            try:
                return self._append(address, count)
            finally:
                self._within -= 1

    def _append(self, address: int, count: int) -> ShmArray:
        array = self._extend(address, count)
        if self._within > 1:
            self._added_within = True
            return array
        self._show(array)
        while self._added_within:
            self._added_within = False
            array = self._extend(address, 0)
            self._show(array)
        return array

    def _extend(self, address: int, count: int) -> ShmArray:
        window = self._handle.value
        buf = with_room(self._engine, 0, lambda: core().window_append(window, address, count))
        return array_of(ArrayHandle(buf, self._engine), self.key)

    def _show(self, array: ShmArray) -> None:
        version = self._publish(array)
        memory = memory_of(array)
        assert memory is not None
        memory.origin.version = version

    def __repr__(self) -> str:
        return f"<window heavy[{self.key!r}] of {self.rows} rows of {self.dtype}{self.shape}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a window cannot be sent to another process; there, read it as ctx.heavy[{self.key!r}]"
        )
