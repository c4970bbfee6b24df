"""Arrays of the library as numpy sees them in the host.

A buf of the library is owned by an `ArrayHandle`, which is what an array's `Memory` keeps: the buf
is released when the last thing derived from the array has died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from . import _abi as abi
from ._core import Handle, core
from .arrays import Origin, ShmArray, memory_of, over_memory
from .dtypes import dtype_of
from .errors import SegmentGone
from .references import holds, reach

__all__ = ["ArrayHandle", "ResultArrays", "array_of", "handles_under", "whole_handle"]


class ArrayHandle(Handle):
    """Owns a buf, and knows what the whole array over it looks like."""

    __slots__ = ("address", "descr", "engine", "shape", "strides")

    def __init__(self, value: int, engine: int) -> None:
        super().__init__(value)
        self.engine = engine
        self.address = 0
        self.descr = ""
        self.shape: tuple[int, ...] = ()
        self.strides: tuple[int, ...] = ()


def array_of(
    handle: ArrayHandle,
    key: str | None,
    publish: Callable[[ShmArray], Any] | None = None,
) -> ShmArray:
    """The array over a buf.

    Args:
        handle: owns the buf.
        key: the name it is known by.
        publish: called by ``array.publish()`` while it is under construction.
    """
    view = core().view(handle.value)
    handle.address = view.data or 0
    handle.descr = view.descr.decode()
    handle.shape = tuple(view.shape[: view.ndim])
    handle.strides = tuple(view.strides[: view.ndim])
    live = bool(view.flags & abi.VIEW_LIVE)
    building = bool(view.flags & abi.VIEW_WRITABLE) and not view.flags & abi.VIEW_PUBLISHED
    origin = Origin(
        key=key,
        segment=view.segment,
        version=view.version,
        address=handle.address - view.offset,
        nbytes=view.nbytes,
        kind="building" if building else "live" if live else "published",
        publish=publish if building else None,
    )
    return over_memory(
        handle.address,
        dtype_of(handle.descr),
        handle.shape,
        handle.strides,
        writable=bool(view.flags & abi.VIEW_WRITABLE),
        origin=origin,
        keep=handle,
    )


def handle_under(array: Any) -> ArrayHandle | None:
    """The handle of the buf under an array or a view of one, None for other memory."""
    memory = memory_of(array)
    keep = memory.keep if memory is not None else None
    return keep if isinstance(keep, ArrayHandle) else None


def handles_under(arrays: Iterable[Any], others: Iterable[ArrayHandle] = ()) -> list[ArrayHandle]:
    """The handles under arrays, and others, each once."""
    found = {handle.value: handle for handle in others}
    for array in arrays:
        handle = handle_under(array)
        if handle is not None:
            found[handle.value] = handle
    return list(found.values())


def whole_handle(array: Any, engine: int) -> ArrayHandle | None:
    """The handle under an array that is exactly one buf of `engine`; None for a part of one."""
    handle = handle_under(array)
    if handle is None or handle.engine != engine or not isinstance(array, np.ndarray):
        return None
    same = (
        array.ctypes.data == handle.address
        and array.shape == handle.shape
        and array.strides == handle.strides
        and array.dtype == dtype_of(handle.descr)
    )
    return handle if same else None


class ResultArrays:
    """Resolves the references in one task's result; the arrays came along with it.

    They came in the order in which the result first mentions them (see `TaskHeavy.hand_over`). The
    numbers of the segments are no guide: what the worker filled may have been copied elsewhere.
    """

    def __init__(self, engine: int, task: int, count: int) -> None:
        self._engine = engine
        self._task = task
        self._count = count
        self._taken = 0
        self._roots: dict[int, list[_Root]] = {}  # by the number that the worker knew

    def resolve(
        self,
        segment: int,
        offset: int,
        descr: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        key: str | None,
        version: int,
    ) -> ShmArray:
        place = reach(offset, dtype_of(descr).itemsize, shape, strides)
        root = self._find(segment, place)
        if root is None:
            raise SegmentGone(
                f"a result refers to segment {segment} ({key or 'without a key'}), which did not "
                "come with it",
                segment=segment,
                key=key,
            )
        return over_memory(
            root.handle.address + offset - root.start,
            dtype_of(descr),
            shape,
            strides,
            writable=False,
            origin=root.origin,
            keep=root.handle,
        )

    def _find(self, segment: int, place: tuple[int, int]) -> _Root | None:
        roots = self._roots.setdefault(segment, [])
        for root in roots:
            if root.covers(place):
                return root
        if self._taken == self._count:
            return None
        handle = ArrayHandle(core().result_buf(self._task, self._taken), self._engine)
        self._taken += 1
        memory = memory_of(array_of(handle, None))
        assert memory is not None
        root = _Root(handle, memory.origin, segment)
        roots.append(root)
        return root if root.covers(place) else None


class _Root:
    """An array that came with a result.

    Attributes:
        start: its offset in the segment as the worker knew it.
    """

    __slots__ = ("handle", "origin", "start")

    def __init__(self, handle: ArrayHandle, origin: Origin, segment: int) -> None:
        self.handle = handle
        self.origin = origin
        # What a worker fills begins where its segment does.
        self.start = handle.address - origin.address if origin.segment == segment else 0

    def covers(self, place: tuple[int, int]) -> bool:
        return holds(self.start, self.origin.nbytes, *place)
