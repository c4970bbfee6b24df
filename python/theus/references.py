"""How shared arrays travel inside a pickle: as references that the receiver resolves.

A reference says segment, offset and layout. Who unpickles it decides where to look: a worker in
the segments of its task, the host in its engine. Which arrays may travel so is decided by who
pickles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from . import identity
from .dtypes import descr_of
from .errors import SegmentGone

if TYPE_CHECKING:
    from .arrays import Origin, ShmArray

__all__ = [
    "Resolver",
    "collecting",
    "holds",
    "offset_of",
    "reach",
    "reduce_reference",
    "resolving",
    "set_default_resolver",
]


class Resolver(Protocol):
    """Finds the array that a reference means."""

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
        """The array at `offset` bytes into `segment`; raises SegmentGone when it is gone."""
        ...


class _Scope(threading.local):
    """What pickling and unpickling in this thread means just now, innermost last."""

    def __init__(self) -> None:
        self.resolvers: list[Resolver] = []
        self.collectors: list[tuple[list[ShmArray], Callable[[Origin], bool]]] = []


_scope = _Scope()
_default_resolver: Resolver | None = None


def set_default_resolver(resolver: Resolver | None) -> None:
    """Set the resolver for references that are unpickled outside of `resolving`."""
    global _default_resolver
    _default_resolver = resolver


class resolving:
    """Within it, references unpickled by this thread go to `resolver`."""

    __slots__ = ("_resolver",)

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def __enter__(self) -> None:
        _scope.resolvers.append(self._resolver)

    def __exit__(self, *_: object) -> None:
        _scope.resolvers.pop()


class collecting:
    """Within it, arrays that this thread pickles as references are noted in the list it gives.

    Args:
        refers: which memory may be referred to; arrays over other memory are pickled by value.
            Default: whatever is published or live.
    """

    # A class and not a generator: a generator costs as much as pickling a small task.
    __slots__ = ("_refers",)

    def __init__(self, refers: Callable[[Origin], bool] | None = None) -> None:
        self._refers = refers or _is_known_to_host

    def __enter__(self) -> list[ShmArray]:
        arrays: list[ShmArray] = []
        _scope.collectors.append((arrays, self._refers))
        return arrays

    def __exit__(self, *_: object) -> None:
        _scope.collectors.pop()


def reduce_reference(array: ShmArray, origin: Origin) -> tuple[Any, ...] | None:
    """What ``__reduce_ex__`` gives for a reference; None when it must travel by value."""
    arrays: list[ShmArray] | None = None
    refers: Callable[[Origin], bool] = _is_known_to_host
    if _scope.collectors:
        arrays, refers = _scope.collectors[-1]
    if not refers(origin):
        return None
    if arrays is not None:
        arrays.append(array)
    place = (identity.owner(), origin.segment, offset_of(array))
    layout = (descr_of(array.dtype), tuple(array.shape), tuple(array.strides))
    return _resolve, (*place, *layout, origin.key, origin.version)


def offset_of(array: ShmArray) -> int:
    """Where an array over theus memory begins in its segment.

    The segment's start counts, not that of the array which this one is a view of: by its offset
    the view is found.
    """
    memory = array._memory
    assert memory is not None
    # A view of no elements may begin where the next array does.
    first = array.__array_interface__["data"][0] if array.size else memory.address
    return int(first) - memory.origin.address


def reach(
    offset: int, itemsize: int, shape: Sequence[int], strides: Sequence[int]
) -> tuple[int, int]:
    """Where the bytes of an array begin and end, for one whose first element is at `offset`."""
    low, high = offset, offset + itemsize
    for length, stride in zip(shape, strides, strict=True):
        if length == 0:
            return offset, offset
        span = (length - 1) * stride
        if span < 0:
            low += span
        else:
            high += span
    return low, high


def holds(start: int, nbytes: int, low: int, high: int) -> bool:
    """Whether an array of so many bytes holds all of another one, by where that begins and ends.

    Windows on one series overlap, so where something begins does not tell what it is a part of.
    """
    if low == high:
        return start <= low < start + max(nbytes, 1)
    return start <= low and high <= start + nbytes


def _is_known_to_host(origin: Origin) -> bool:
    return origin.segment != 0 and origin.kind in ("published", "live")


def _resolve(
    owner: str,
    segment: int,
    offset: int,
    descr: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    key: str | None,
    version: int,
) -> ShmArray:
    """What a pickled reference calls when it is unpickled."""
    resolver = _scope.resolvers[-1] if _scope.resolvers else _default_resolver
    if resolver is None or owner != identity.owner():
        name = f"heavy[{key!r}]" if key else "a shared array"
        raise SegmentGone(
            f"A reference to {name} (segment {segment}, version {version}) was unpickled outside "
            "of the engine that holds it. A pickled ShmArray is a reference, not the data: to "
            "store it or to send it elsewhere, pickle numpy.array(x).",
            segment=segment,
            key=key,
        )
    return resolver.resolve(segment, offset, descr, shape, strides, key, version)
