"""What shared arrays must look like, told by plain numpy.

Each real array or view has a twin: the same derivation of an array in ordinary memory. What is
written to one is written to the other, so twins share memory just where the real ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from theus import ShmArray

Array = np.ndarray[Any, Any]


class Bytes:
    """The memory of one array, as one kind of reader sees it.

    Attributes:
        flat: its bytes.
        twin: the array over them.
        live: whether others see what is written, also after publish.
        public: the same memory as all others see it; None: nobody does yet.
        owner: the engine that it belongs to.
    """

    def __init__(
        self,
        dtype: Any,
        shape: tuple[int, ...],
        order: Literal["C", "F"] = "C",
        *,
        live: bool = False,
        owner: object = None,
    ) -> None:
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.flat = np.zeros(max(nbytes, 1), np.uint8)
        self.twin: Array = np.ndarray(shape, dtype, self.flat, order=order)
        self.live = live
        self.public: Bytes | None = None
        self.owner = owner

    def publish(self) -> Bytes:
        """From here on others see it: what it is now, or a live one as it changes."""
        if self.public is None:
            self.public = self if self.live else self.copy()
            self.public.public = self.public
            self.public.owner = self.owner
        return self.public

    def copy(self) -> Bytes:
        order: Literal["C", "F"] = "C" if self.twin.flags.c_contiguous else "F"
        made = Bytes(self.twin.dtype, self.twin.shape, order, live=self.live)
        made.flat[...] = self.flat
        return made

    def as_published(self, view: Array) -> Array:
        """What others see of a view of this memory."""
        assert self.public is not None
        # numpy gives empty views addresses of their own.
        offset = _start(view) - _start(self.flat) if view.size else 0
        return np.ndarray(view.shape, view.dtype, self.public.flat, offset, view.strides)


class View:
    """Something that reads shared memory.

    Attributes:
        real: an array, or a memoryview.
        twin: what it must equal.
        memory: what both lie over; None when they have memory of their own.
    """

    def __init__(self, real: Any, twin: Array, memory: Bytes | None) -> None:
        self.real = real
        self.twin = twin
        # What is empty lies nowhere; it counts as over the memory that it was derived from.
        over = memory is not None and (not twin.size or np.shares_memory(twin, memory.flat))
        self.memory = memory if over else None

    def check(self) -> None:
        real = np.asarray(self.real)
        assert (real.shape, real.dtype) == (self.twin.shape, self.twin.dtype)
        assert real.tobytes() == self.twin.tobytes(), f"{real!r} is not {self.twin!r}"

    def is_whole(self) -> bool:
        """Whether it is the whole array that was published, rather than a part or another view."""
        assert self.memory is not None
        one, other = self.twin, self.memory.twin
        same = (one.dtype, one.shape) == (other.dtype, other.shape)
        return same and (not one.size or one.strides == other.strides)

    def elsewhere(self) -> Array:
        """What a worker sees that is given this."""
        if self.memory is None or not self.is_reference():
            return self.twin
        return self.memory.as_published(self.twin)

    def is_reference(self) -> bool:
        """Whether it is sent as a reference; all else is sent by value."""
        shared = self.memory is not None and self.memory.public is not None
        return shared and isinstance(self.real, ShmArray)

    @property
    def writable(self) -> bool:
        if isinstance(self.real, memoryview):
            return not self.real.readonly
        return bool(self.real.flags.writeable)


def _start(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


# What is derived from a real array and from its twin in the same way. Some give views and some
# copies, as the strides have it; numpy decides the same for both.
DERIVATIONS: dict[str, Callable[[Any], Any]] = {
    "slice": lambda a: a[1:] if a.ndim else a[...],
    "backwards": lambda a: a[::-1] if a.ndim else a[...],
    "every second": lambda a: a[..., ::2] if a.ndim else a[...],
    "row": lambda a: a[0:1].reshape(-1) if a.ndim else a[...],
    "transposed": lambda a: a.T,
    "flat": lambda a: a.reshape(-1),
    "raveled": lambda a: a.ravel(),
    "new axis": lambda a: a[np.newaxis] if a.ndim < 8 else a[...],
    "plain": np.asarray,
    "same type": lambda a: a.astype(a.dtype, copy=False),
    "whole": lambda a: a[...],
    "picked": lambda a: a[[0, 0]] if a.ndim and len(a) else a[...],
    "copied": lambda a: a.copy(),
    "broadcast": lambda a: np.broadcast_to(a, (1, *a.shape)) if a.ndim < 8 else a[...],
    "field": lambda a: a[a.dtype.names[0]] if a.dtype.names else a[...],
}
