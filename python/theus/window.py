"""``engine.heavy.window``: the newest rows of a series that grows, as one array."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._core import Handle, core
from .allocation import layout_of, with_room
from .arrays import ShmArray
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

    __slots__ = ("_engine", "_handle", "_lock", "_publish", "dtype", "key", "rows", "shape")

    def __init__(
        self,
        engine: int,
        key: str,
        dtype: np.dtype[Any],
        rows: int,
        shape: Sequence[int],
        publish: Callable[[ShmArray], Any],
    ) -> None:
        try:
            rows = operator.index(rows)
        except TypeError:
            raise TypeError(f"rows must be a whole number, not {rows!r}") from None
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
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
        self._lock = threading.Lock()  # windows are published in the order of their rows
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
        window, address = self._handle.value, data.__array_interface__["data"][0]
        with self._lock:
            buf = with_room(self._engine, 0, lambda: core().window_append(window, address, count))
            array = array_of(ArrayHandle(buf, self._engine), self.key)
            self._publish(array)
            return array

    def __repr__(self) -> str:
        return f"<window heavy[{self.key!r}] of {self.rows} rows of {self.dtype}{self.shape}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a window cannot be sent to another process; there, read it as ctx.heavy[{self.key!r}]"
        )
