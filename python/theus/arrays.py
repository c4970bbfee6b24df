"""numpy arrays over shared memory: what they are made of and what they refuse.

::

    ShmArray ──base──► ndarray ──base──► Memory ──keep──► whatever owns the map
        ▲                                   ▲
        └── slices, transposes, …           └── np.asarray, pandas, DLPack, memoryview, …

Everything derived from an array ends at its `Memory`, also what forgets the subclass. So whoever
owns a map attaches its finalizer to the `Memory`, never to the array: that one dies while others
still read the same bytes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from . import array_methods
from .dtypes import descr_of, dtype_of
from .errors import ContractViolationError
from .references import (
    Resolver,
    collecting,
    reduce_reference,
    resolving,
    set_default_resolver,
)
from .shared_memory import SharedMemoryInfo

__all__ = [
    "Memory",
    "Origin",
    "Resolver",
    "SharedMemoryInfo",
    "ShmArray",
    "bytes_over",
    "collecting",
    "descr_of",
    "dtype_of",
    "freeze",
    "is_shared",
    "memory_of",
    "over_memory",
    "resolving",
    "set_default_resolver",
]

Kind = Literal["building", "published", "live", "output", "private"]


class Origin:
    """What is known of the memory under an array.

    Attributes:
        key: the name under which it is known in ``heavy``, or None.
        segment: number of its segment, unique in the host's life; 0 for none.
        version: version of the state that it was published in; 0: not (yet).
        address: where the *segment* begins in this process; an array's offset in the segment is
            its own address less this one. A small array that the host fills lies elsewhere until
            it is published, and this is counted back from there.
        nbytes: bytes that belong to the array.
        kind: "building" (the host fills it, nobody sees it), "published" (immutable), "live"
            (changes in place, seen by all), "output" (a worker fills it) or "private" (changes
            reach nobody else).
        publish: what `ShmArray.publish` calls; None where it cannot be published. It must not
            hold the array: the garbage collector does not see through numpy's bases, so that
            would keep the memory for ever.
    """

    __slots__ = ("address", "key", "kind", "nbytes", "publish", "segment", "version")

    def __init__(
        self,
        *,
        key: str | None = None,
        segment: int = 0,
        version: int = 0,
        address: int = 0,
        nbytes: int = 0,
        kind: Kind = "published",
        publish: Callable[[ShmArray], Any] | None = None,
    ) -> None:
        self.key = key
        self.segment = segment
        self.version = version
        self.address = address
        self.nbytes = nbytes
        self.kind: Kind = kind
        self.publish = publish

    @property
    def name(self) -> str:
        """For messages: ``heavy['prices']``."""
        return f"heavy[{self.key!r}]" if self.key else "this shared array"


class Memory:
    """The bytes under an array, as numpy's base object.

    It lacks the buffer protocol on purpose: numpy then finds no writable owner behind a read-only
    array and refuses ``setflags(write=True)``.

    Attributes:
        origin: what is known of the bytes.
        keep: whatever must live as long as they are in use.
    """

    __slots__ = (
        "__array_interface__",
        "__weakref__",
        "_limit",
        "_lock",
        "_views",
        "keep",
        "origin",
    )

    def __init__(self, interface: dict[str, Any], origin: Origin, keep: object) -> None:
        self.__array_interface__ = interface
        self.origin = origin
        self.keep = keep
        writable = not interface["data"][1]
        self._views: list[weakref.ref[Any]] | None = None
        if writable:
            self._views = []
            self._limit = 64
            self._lock = threading.Lock()

    @property
    def address(self) -> int:
        """Address of the array's first byte in use."""
        return int(self.__array_interface__["data"][0])

    def note(self, view: np.ndarray[Any, Any]) -> None:
        """Remember a view that can be written through, for `refuse_writes`."""
        if self._views is not None:
            self._views.append(weakref.ref(view))

    def _sweep(self, views: list[weakref.ref[Any]]) -> None:
        if not self._lock.acquire(blocking=False):
            return  # another thread is at it
        try:
            # Only what was there at the start is swept: other threads append meanwhile.
            count = len(views)
            alive = [ref for ref in views[:count] if ref() is not None]
            views[:count] = alive
            self._limit = max(64, 2 * len(alive))
        finally:
            self._lock.release()

    def refuse_writes(self) -> None:
        """Make every noted view read-only."""
        views, self._views = self._views, None
        for ref in views or ():
            view = ref()
            if view is not None:
                view.flags.writeable = False


def over_memory(
    address: int,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    strides: Sequence[int] | None,
    *,
    writable: bool,
    origin: Origin,
    keep: object = None,
) -> ShmArray:
    """An array over memory that somebody else owns.

    Args:
        address: of its first element.
        dtype: of its elements; not object.
        shape: its shape.
        strides: in bytes, or None for C order.
        writable: whether it may be written through.
        origin: what is known of the memory.
        keep: kept alive until the last array derived from this one is gone. For a callback then,
            attach a ``weakref.finalize`` to ``memory_of(array)``.
    """
    interface = {
        "version": 3,
        # Fields cannot be told through the interface; raw items of the same size can.
        "typestr": dtype.str if dtype.names is None else f"|V{dtype.itemsize}",
        "shape": tuple(shape),
        "strides": None if strides is None else tuple(strides),
        "data": (address, not writable),
    }
    memory = Memory(interface, origin, keep)
    root = np.asarray(memory)
    memory.note(root)
    if root.dtype != dtype:
        root = root.view(dtype)
        memory.note(root)
    array = root.view(ShmArray)
    array._memory = memory
    memory.note(array)
    return array


def bytes_over(address: int, nbytes: int, *, writable: bool, keep: object) -> memoryview:
    """Raw memory as a buffer of bytes that keeps `keep` alive."""
    if nbytes == 0:
        return memoryview(bytearray())
    interface = {
        "version": 3,
        "typestr": "|u1",
        "shape": (nbytes,),
        "strides": None,
        "data": (address, not writable),
    }
    origin = Origin(address=address, nbytes=nbytes, kind="private")
    return memoryview(np.asarray(Memory(interface, origin, keep)))


def memory_of(array: Any) -> Memory | None:
    """The theus memory under an array, or under anything with a chain of bases; else None."""
    owner = array
    for _ in range(64):  # numpy keeps the chain short; others might have made a cycle
        if owner is None or isinstance(owner, Memory):
            return owner
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    return None


def is_shared(array: Any) -> bool:
    """Whether these bytes are in shared memory, seen by other processes too, rather than a copy.

    Private maps (``ctx.heavy.cow``, large inputs and results) are not: what is written there
    stays in this process.

    Example:
        >>> is_shared(ctx.heavy["prices"][10:20])
        True
        >>> is_shared(ctx.heavy["prices"] * 2)
        False
    """
    memory = memory_of(array)
    return memory is not None and memory.origin.kind != "private"


def freeze(array: ShmArray) -> None:
    """Make an array and every view derived from it read-only, and mark its memory as published.

    Plain ndarrays that were derived before cannot be found. That is why the host also swaps the
    pages under them for a private map: what is written there reaches nobody.

    Raises:
        TypeError: the array does not lie over theus memory.
    """
    memory = memory_of(array)
    if memory is None:
        raise TypeError("freeze() takes an array over theus memory, and this one has its own")
    memory.refuse_writes()
    memory.origin.kind = "published"
    memory.origin.publish = None


class ShmArray(np.ndarray[Any, Any]):
    """A numpy array whose elements lie in shared memory.

    Slices and other views are `ShmArray` too; what has memory of its own (``x + 1``, sums,
    copies) is a plain ndarray or scalar. A published one is read-only. It is pickled as a
    reference.
    """

    __slots__ = ("_memory",)
    _memory: Memory | None

    # Below ndarray's, so that what is made of several arrays is a plain one.
    __array_priority__: ClassVar[float] = -100.0

    def __array_finalize__(self, source: Any) -> None:
        memory = getattr(source, "_memory", None)
        # A view's base is what it was taken from, or the array which that is a view of itself.
        # Anything else (None, a temporary) means that the data was copied.
        base = self.base
        if memory is None or (base is not source and base is not source.base):
            self._memory = None
            return
        self._memory = memory
        views = memory._views
        if views is not None:  # Memory.note, without the call: this is what a slice costs
            views.append(weakref.ref(self))
            if len(views) > memory._limit:
                memory._sweep(views)

    def __array_wrap__(
        self, array: Any, context: Any = None, return_scalar: bool | None = None
    ) -> Any:
        if array is self:
            return array
        # numpy 1 does not say whether a scalar is wanted: there it was, for the shape ().
        if return_scalar or (return_scalar is None and array.shape == ()):
            return array[()]
        return array_methods.unless_view(array)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return array_methods.unless_view(super().__array_function__(func, types, args, kwargs))

    def __getitem__(self, index: Any) -> Any:
        result = super().__getitem__(index)
        if type(result) is ShmArray and result._memory is None:  # a list of indices copies
            return result.view(np.ndarray)
        return result

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._memory is not None:
            reference = reduce_reference(self, self._memory.origin)
            if reference is not None:
                return reference
        return self.view(np.ndarray).__reduce_ex__(protocol)

    def publish(self) -> Any:
        """Publish the array under the key that it was allocated for; it is read-only after that.

        Returns:
            What the engine gives back: the new state.

        Raises:
            ContractViolationError: it is not one that the host has under construction.
        """
        origin = self._memory.origin if self._memory is not None else None
        if origin is None or origin.publish is None:
            raise ContractViolationError(_why_not_published(origin))
        return origin.publish(self)

    @property
    def shm(self) -> SharedMemoryInfo:
        """The memory under the array, in the words of multiprocessing's SharedMemory."""
        memory = self._memory
        key = memory.origin.key if memory is not None else None
        return SharedMemoryInfo(key, lambda: _bytes_of(self))

    _shm_ref = shm


array_methods.adapt(ShmArray)


def _bytes_of(array: ShmArray) -> memoryview:
    """The bytes under the whole array that this one is a view of; writable if this one is."""
    memory = array._memory
    if memory is None:
        return memoryview(array.tobytes())
    writable = bool(array.flags.writeable)
    return bytes_over(memory.address, memory.origin.nbytes, writable=writable, keep=memory)


def _why_not_published(origin: Origin | None) -> str:
    if origin is not None and origin.kind == "output":
        return (
            f"{origin.name} was allocated by a worker, which cannot publish: return the array, "
            "and the engine publishes it as an output of the function."
        )
    if origin is not None and origin.kind in ("published", "live"):
        return (
            f"{origin.name} is published already. For its next version use "
            f"engine.heavy.edit({origin.key!r})."
        )
    return (
        "This array is not under construction in shared memory, so there is nothing to publish. "
        "Use engine.heavy.put(key, array)."
    )
