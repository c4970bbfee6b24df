"""``engine.heavy``: large arrays, to make, publish, read and remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import _abi as abi
from ._core import core
from ._status import NotFound
from .allocation import allocate, copy_into, dimensions, with_room
from .arrays import ShmArray, memory_of
from .edited import EditedArray
from .host_arrays import ArrayHandle, array_of
from .reaping import reap
from .stream import Stream
from .structures import DELETE
from .updates import c_text
from .window import Window

if TYPE_CHECKING:
    from .commits import Committer
    from .state import State

__all__ = ["Heavy"]


class Heavy(MutableMapping[str, Any]):
    """The heavy arrays of an engine, always of the current version.

    Args:
        committer: commits what is published.
        snapshot: gives the current version.
    """

    __slots__ = ("_committer", "_snapshot")
    _committer: Committer
    _snapshot: Callable[[], State]

    def __init__(self, committer: Committer, snapshot: Callable[[], State]) -> None:
        object.__setattr__(self, "_committer", committer)
        object.__setattr__(self, "_snapshot", snapshot)

    # -- making --------------------------------------------------------------------------------

    def alloc(
        self,
        key: str,
        shape: int | Sequence[int],
        dtype: Any = np.float64,
        *,
        order: Literal["C", "F"] = "C",
        zero: bool = True,
        live: bool = False,
    ) -> ShmArray:
        """An array in shared memory, to be filled and then published.

        Nobody else sees it before that: ``array.publish()``, or a compare-and-swap that names it.
        When the key exists, this becomes its next version.

        Args:
            key: what it is to be called.
            shape: an int or a tuple of ints; sizes of 0 are fine.
            dtype: any numpy dtype of a fixed size, structured ones included.
            order: "C", the last index varies fastest, or "F", the first one does.
            zero: start with zeros. Without it the content may be that of an older array, which
                saves a pass over the memory if all of it is written anyway.
            live: the array stays writable after it is published; workers see writes at once, and
                snapshots promise nothing about it.

        Raises:
            HeapFull: there is no room; says what was asked, what is in use and who holds it. Tasks
                whose older versions and inputs will make enough room are waited for before, as long
                as memory comes back within a minute.
            ValueError: a negative or too large shape, an order other than "C" and "F".
            TypeError: the dtype holds Python objects.

        Example:
            >>> prices = engine.heavy.alloc("prices", (1000, 8), np.float32)
            >>> prices[:] = 1.0
            >>> prices.publish()
        """
        if order not in ("C", "F"):
            raise ValueError(f"order must be 'C' or 'F', not {order!r}")
        flags = (abi.ORDER_F if order == "F" else 0) | (abi.LIVE if live else 0)
        flags |= 0 if zero else abi.UNZEROED
        return self._alloc(key, dimensions(shape), np.dtype(dtype), flags)

    def put(self, key: str, obj: Any) -> ShmArray:
        """Publish a copy of `obj` under `key`.

        Args:
            key: what it is to be called.
            obj: an array, or what numpy can make one of. A DataFrame becomes a 2-D array when its
                columns have one kind of number, else a structured array with its columns as
                fields; the index is left out.

        Returns:
            The published array, read-only.

        Raises:
            TypeError: its elements would be Python objects.
            StatelessnessError: it is something that cannot leave this process at all.
            HeapFull: there is no room.
        """
        array = copy_into(partial(self._alloc, key), key, obj)
        self._committer.publish(array, key)
        return array

    def edit(self, key: str, blank: bool = False) -> EditedArray:
        """The next version of a published array, as a copy that can be written.

        Use it as an array and ``publish()`` it, or as a context manager, which publishes on exit
        and drops it when an exception leaves the block.

        Args:
            key: an array that is published.
            blank: do not copy the present content.

        Raises:
            KeyError: nothing is published under `key`.
            HeapFull: there is no room.

        Example:
            >>> with engine.heavy.edit("prices") as prices:
            ...     prices[0] = 2.0
        """
        engine = self._committer.engine
        flags = abi.BLANK if blank else 0
        name = c_text(key, "key")
        try:
            size = getattr(self.get(key), "nbytes", 0)
            buf = with_room(engine, size, lambda: core().edit(engine, name, flags))
        except NotFound:
            raise KeyError(self._snapshot().heavy._missing(key)) from None
        array = array_of(ArrayHandle(buf, engine), key, self._publish)
        return array.view(EditedArray)

    def stream(
        self,
        key: str,
        shape: int | Sequence[int],
        dtype: Any = np.float64,
        *,
        keep: int = 3,
        full: Literal["wait", "drop_oldest"] = "wait",
    ) -> Stream:
        """Frames of one shape, such as pictures of a camera, each the next version of `key`.

        No frame is written again while anybody reads it, and no more than `keep` are in use at
        once: the current version, those under construction, and older ones that a task, a snapshot
        or an array still has.

        Args:
            key: what the frames are to be called.
            shape: of a frame; an int or a tuple of ints.
            dtype: of a frame.
            keep: how many frames may be in use; at least 2.
            full: what ``next()`` does when so many are. "wait": it waits until one comes free, so
                that the slowest reader sets the pace. "drop_oldest": it does not; the oldest frame
                is left to its readers and counts no longer, so that memory grows with them.

        Raises:
            ValueError: a negative shape, too small a `keep`, another `full`.

        Example:
            >>> frames = engine.heavy.stream("camera", (1080, 1920, 3), np.uint8)
            >>> with frames.next() as frame:
            ...     frame[:] = 255
        """
        sizes, kind = dimensions(shape), np.dtype(dtype)
        return Stream(self._committer.engine, key, sizes, kind, keep, full, self._publish)

    def window(
        self, key: str, dtype: Any = np.float64, *, rows: int, shape: int | Sequence[int] = ()
    ) -> Window:
        """The newest rows of a series that grows at its end, such as ticks or log records.

        It is published at once, with no rows in it, and again by each ``append``: an array of the
        newest `rows` rows in one piece, which later rows never touch.

        Args:
            key: what it is to be called; what is published there is replaced.
            dtype: of the elements; a structured one for records.
            rows: how many rows it shows at most.
            shape: of a row; an int or a tuple of ints. Default: a row is one element.

        Raises:
            HeapFull: there is no room for twice the rows, which is what it takes, 64 KiB at least.
                Once that is full it goes on in as much again, while what it shows and what readers
                have is still in the old: plan for four times the rows.
            ValueError: a negative shape, or no rows, or rows without any bytes.

        Example:
            >>> ticks = engine.heavy.window("ticks", [("at", "i8"), ("price", "f8")], rows=1000)
            >>> ticks.append((1, 101.5))
            >>> ticks.append([(2, 101.0), (3, 101.25)])
        """
        sizes, kind = dimensions(shape), np.dtype(dtype)
        return Window(self._committer.engine, key, kind, rows, sizes, self._publish_as(key))

    def _publish_as(self, key: str) -> Callable[[ShmArray], Any]:
        return lambda array: self._committer.publish(array, key)

    def _alloc(self, key: str, shape: Sequence[int], dtype: np.dtype[Any], flags: int) -> ShmArray:
        name = c_text(key, "key")
        return allocate(self._committer.engine, name, key, shape, dtype, flags, self._publish)

    def _publish(self, array: ShmArray) -> State:
        memory = memory_of(array)
        assert memory is not None
        key = memory.origin.key
        assert key is not None
        self._committer.publish(array, key)
        return self._snapshot()

    # -- reading -------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """The published array under `key`, or `default` when there is none."""
        return self._snapshot().heavy.get(key, default)

    def __getitem__(self, key: str) -> ShmArray:
        array: ShmArray = self._snapshot().heavy[key]
        return array

    def __getattr__(self, name: str) -> ShmArray:
        array: ShmArray = getattr(self._snapshot().heavy, name)
        return array

    def __contains__(self, key: object) -> bool:
        return key in self._snapshot().heavy

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot().heavy.keys())

    def __len__(self) -> int:
        return len(self._snapshot().heavy.keys())

    # -- changing ------------------------------------------------------------------------------

    def __setitem__(self, key: str, obj: Any) -> None:
        """Publish: an array under construction as it is, anything else as by `put`."""
        memory = memory_of(obj) if isinstance(obj, ShmArray) else None
        if memory is not None and memory.origin.kind in ("building", "published", "live"):
            self._committer.publish(obj, key)
        else:
            self.put(key, obj)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"heavy.{name} cannot be set; publish an array with heavy[{name!r}] = array, or "
            f"heavy.put({name!r}, array)."
        )

    def __delitem__(self, key: str) -> None:
        """Remove the array from the state; views and snapshots that have it keep it.

        Raises:
            KeyError: nothing is published under `key`.
        """
        state = self._snapshot()
        if key not in state.heavy:
            raise KeyError(state.heavy._missing(key))
        self._committer.commit(None, {}, {key: DELETE})

    def cleanup(self) -> dict[str, int]:
        """Give back at once what nobody uses any more; nothing that is published is removed.

        Memory needs no cleaning up by hand: it goes with its last user.
        """
        return reap(self._committer.engine)

    def __repr__(self) -> str:
        return f"<engine.heavy: {', '.join(self) or 'no arrays'}>"

    def __reduce__(self) -> Any:
        raise TypeError("engine.heavy cannot be sent to another process; there, use ctx.heavy")
