"""``engine.map(…, out=key)``: each item's row of one array, written where it is read later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _abi as abi
from ._core import core
from .allocation import dimensions, layout_of, with_room
from .arrays import ShmArray
from .host_arrays import ArrayHandle, array_of
from .updates import c_text

if TYPE_CHECKING:
    from .session import Session

__all__ = ["MapOutput"]


class MapOutput:
    """An array under construction, of which items of a map write a row each.

    Args:
        session: the engine.
        key: what it is to be called.
        items: how many rows there are.
        shape: of a row.
        dtype: of its elements.
        in_workers: worker processes write it, not this one.

    Raises:
        HeapFull: there is no room.
        ValueError: a negative size. TypeError: the dtype holds Python objects.
    """

    def __init__(
        self,
        session: Session,
        key: str,
        items: int,
        shape: int | Sequence[int],
        dtype: Any,
        *,
        in_workers: bool,
    ) -> None:
        self._session = session
        self._key = key
        name = c_text(key, "out")
        whole = (items, *dimensions(shape))
        descr, itemsize, lengths, nbytes = layout_of(whole, np.dtype(dtype))
        flags = abi.OUTPUT if in_workers else 0
        engine = session.engine
        buf = with_room(
            engine, nbytes, lambda: core().alloc(engine, name, descr, itemsize, lengths, flags)
        )
        self._handle = ArrayHandle(buf, engine)
        self._here = None if in_workers else array_of(self._handle, key)

    @property
    def handle(self) -> ArrayHandle | None:
        """What tasks are given so that they can write; None: they run in this process."""
        return self._handle if self._here is None else None

    def row(self, item: int) -> np.ndarray[Any, Any]:
        """The row of an item, for a map that runs in this process."""
        assert self._here is not None
        return np.asarray(self._here)[item, ...]

    def publish(self) -> ShmArray:
        """Make it the current version of its key, when all items have been written."""
        committer = self._session.committer
        if self._here is not None:
            committer.publish(self._here, self._key)
            # As the state has it: rows that somebody kept can still be written to where they were.
            published: ShmArray = self._session.state().heavy[self._key]
            return published
        committer.publish_buf(self._handle.value, self._key)
        return array_of(self._handle, self._key)  # now that nobody writes it any more

    def drop(self) -> None:
        """Nobody is to see it: an item has failed."""
        if self._here is None:
            self._handle.release()
        else:
            # Threads may still be writing rows: it goes with the last of those, and not with this
            # object, which the traceback of the failure keeps.
            del self._handle, self._here
