"""Making arrays in shared memory, and copying things into them."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import _abi as abi
from . import stateless
from ._core import core
from .arrays import ShmArray, freeze, memory_of
from .dtypes import descr_of
from .errors import HeapFull
from .host_arrays import ArrayHandle, array_of
from .interruptible import collect, interruptible

__all__ = [
    "allocate",
    "as_shareable",
    "copy_into",
    "copy_into_segment",
    "dimensions",
    "layout_of",
    "mark_published",
    "whole_number",
    "with_room",
]

Array = np.ndarray[Any, Any]
# Memory of this size takes some 50 ms to get.
SLOW = 256 << 20
# Seconds without any memory coming back after which it is not waited for any more: tasks may wait
# for what this thread does next, such as writing to a live array.
BACKLOG_PATIENCE = 60.0


def allocate(
    engine: int,
    name: bytes | None,
    key: str | None,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    flags: int,
    publish: Callable[[ShmArray], Any] | None,
) -> ShmArray:
    """An array under construction; `name` tells the library that it will be a version of a key."""
    descr, itemsize, shape, nbytes = layout_of(shape, dtype)
    buf = with_room(
        engine, nbytes, lambda: core().alloc(engine, name, descr, itemsize, shape, flags)
    )
    return array_of(ArrayHandle(buf, engine), key, publish)


def layout_of(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[str, int, Sequence[int], int]:
    """An array as the library is told of it: descr, size of an item, shape, and bytes in all."""
    shape = (*shape, *dtype.shape)  # of ("f4", (3,)), say: numpy puts the inner shape last
    base = dtype.base
    return descr_of(base), base.itemsize, shape, math.prod(shape) * base.itemsize


def copy_into_segment(engine: int, key: str, obj: Any) -> ShmArray:
    """A shared copy of an array, still under construction."""

    def make(shape: Sequence[int], dtype: np.dtype[Any], flags: int) -> ShmArray:
        return allocate(engine, None, key, shape, dtype, flags, None)

    return copy_into(make, key, obj)


def copy_into(
    make: Callable[[Sequence[int], np.dtype[Any], int], ShmArray], key: str, obj: Any
) -> ShmArray:
    """A copy of an array, in one that `make` makes by shape, dtype and flags."""
    source = as_shareable(obj, f"heavy[{key!r}]")
    fortran = source.flags.f_contiguous and not source.flags.c_contiguous
    flags = abi.UNZEROED | (abi.ORDER_F if fortran else 0)
    array = make(source.shape, source.dtype, flags)
    np.copyto(array, source)
    return array


def mark_published(array: ShmArray, key: str, version: int) -> None:
    """Make an array that was just published read-only, with all views taken from it."""
    memory = memory_of(array)
    assert memory is not None
    if memory.origin.kind != "building":
        return
    memory.origin.key = key
    memory.origin.version = version
    handle = memory.keep
    assert isinstance(handle, ArrayHandle)
    if core().view(handle.value).flags & abi.VIEW_LIVE:
        memory.origin.kind = "live"
        memory.origin.publish = None
    else:
        freeze(array)


def as_shareable(obj: Any, place: str) -> Array:
    """`obj` as an array whose elements can lie in shared memory.

    Args:
        obj: an array or what can be made one.
        place: what to call it in an error.

    Raises:
        StatelessnessError: it, or something in it, belongs to this process.
        TypeError: its elements are Python objects.
    """
    if stateless.bound_to_process(obj) is not None:
        raise stateless.explain(obj, place, TypeError("it is not data"))
    array = np.asarray(obj)
    if array.dtype.hasobject and hasattr(obj, "to_records"):  # a DataFrame of mixed columns
        array = np.asarray(obj.to_records(index=False))
    elif array.dtype.hasobject and hasattr(obj, "to_numpy"):
        array = _structured(obj, array)
    if array.dtype.hasobject:
        if not stateless.pickles(obj):
            raise stateless.explain(obj, place, TypeError("it holds Python objects"))
        if array.ndim == 0 and not isinstance(obj, np.ndarray):
            raise TypeError(
                f"{place}: a {stateless.type_name(obj)} is no array, and numpy makes none of it. "
                "Other values belong in the state: engine.compare_and_swap(version, data={…})."
            )
        raise TypeError(f"{place}: {_object_advice(array.dtype)}")
    return array.view(np.ndarray)


def _structured(obj: Any, array: Array) -> Array:
    try:
        return np.asarray(obj.to_numpy(structured=True))
    except (TypeError, ValueError):
        return array


def _object_advice(dtype: np.dtype[Any]) -> str:
    columns = [name for name in dtype.names or () if dtype[name].hasobject]
    if columns:
        return (
            f"the columns {', '.join(columns)} hold Python objects, which cannot be shared. "
            "Convert text with .astype('U20') or to category codes, or leave the columns out."
        )
    try:
        descr_of(dtype)
    except TypeError as failure:
        return str(failure)
    return f"dtype {dtype} cannot be shared"


def dimensions(shape: int | Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple.

    Raises:
        ValueError: a negative size, or one beyond any memory. TypeError: no whole number.
    """
    try:
        sizes = (operator.index(shape),)  # type: ignore[arg-type]
    except TypeError:
        try:
            sizes = tuple(operator.index(n) for n in shape)  # type: ignore[union-attr, assignment]
        except TypeError:
            raise TypeError(
                f"shape must be a whole number or a tuple of them, not {shape!r}"
            ) from None
    if any(n < 0 for n in sizes):
        raise ValueError(f"shape {sizes} has a negative size")
    if any(n >= 2**63 for n in sizes):
        raise ValueError(f"shape {sizes} is larger than any memory")
    return sizes


def whole_number(value: Any, name: str, *, least: int) -> int:
    """An argument that counts something.

    Raises:
        TypeError: it is no whole number. ValueError: it is too small, or beyond any memory.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    if number >= 2**63:
        raise ValueError(f"{name}={number} is larger than any memory")
    return number


def with_room(engine: int, nbytes: int, make: Callable[[], int]) -> int:
    """Allocate; when the heap is full, again after giving back what cycles still hold.

    Then for as long as tasks hold so much of it that there is room once they have ended: who makes
    new versions faster than tasks read the old ones has to wait for them.
    """
    allocate_ = make if nbytes < SLOW else lambda: interruptible(make)
    try:
        return allocate_()
    except HeapFull:
        pass
    collect()
    core().reap(engine)
    returned = -1
    deadline = math.inf
    while True:
        try:
            return allocate_()  # waits for ends a little; handlers of signals run in between
        except HeapFull as full:
            backlog = full.detail.get("backlog")
            if backlog is None:
                raise
            if backlog["returned"] != returned:
                returned = backlog["returned"]
                deadline = time.monotonic() + BACKLOG_PATIENCE
            elif time.monotonic() >= deadline:
                raise
