"""``engine.heavy.stream``: one version after the other of an array, and not too many at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ._core import Handle, core
from .allocation import layout_of, whole_number, with_room
from .arrays import ShmArray
from .edited import EditedArray
from .errors import StreamFull
from .host_arrays import ArrayHandle, array_of
from .interruptible import collect
from .updates import c_text

__all__ = ["Stream"]

# Seconds that the library waits at a time: handlers of signals run in between.
_SLICE = 0.1


class Stream:
    """Frames for one heavy key; `Heavy.stream` makes it.

    A frame is in use while it is under construction, while it is the current version, and as long
    as a task, a snapshot or an array has it. One in use is never written again.

    Attributes:
        key: what the frames are published under.
        keep: how many may be in use at once.
    """

    __slots__ = ("_engine", "_handle", "_nbytes", "_publish", "keep", "key")

    def __init__(
        self,
        engine: int,
        key: str,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        keep: int,
        full: Literal["wait", "drop_oldest"],
        publish: Callable[[ShmArray], Any],
    ) -> None:
        if full not in ("wait", "drop_oldest"):
            raise ValueError(f"full must be 'wait' or 'drop_oldest', not {full!r}")
        keep = whole_number(keep, "keep", least=1)
        if keep < 2:
            raise ValueError(
                f"keep must be at least 2, not {keep}: the current version is one frame, and the "
                "one that is being written another"
            )
        descr, itemsize, shape, self._nbytes = layout_of(shape, dtype)
        handle = core().stream_open(
            engine, c_text(key, "key"), descr, itemsize, shape, keep, drop_oldest=full != "wait"
        )
        self._handle = Handle(handle)
        self._engine = engine
        self._publish = publish
        self.key = key
        self.keep = keep

    def next(self, timeout: float | None = 60.0) -> EditedArray:
        """The next frame: a zeroed array to fill and publish.

        Use it as a context manager, which publishes on exit and drops it when an exception leaves
        the block; or call its ``publish()``. One that is dropped unpublished never was; it has its
        place as long as a name means it, so ``del frame`` where you handle the exception.

        Args:
            timeout: seconds to wait, with ``full="wait"``, until fewer than `keep` frames are in
                use; None: as long as it takes. In a coroutine, where waiting would hold up the
                loop, use ``await asyncio.to_thread(stream.next)``.

        Raises:
            StreamFull: all frames were in use until the timeout.
            HeapFull: there is no room in the heap.
            EngineClosed: the engine was closed meanwhile.

        Example:
            >>> with stream.next() as frame:
            ...     frame[:] = camera.read()
        """
        if timeout is not None and math.isnan(timeout):
            raise ValueError("timeout must be a number of seconds or None, not nan")
        deadline = None if timeout is None else time.monotonic() + timeout
        wait, collected = 0.0, False
        while True:
            try:
                buf = self._next(round(wait * 1000))
            except StreamFull:
                left = math.inf if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise
                if wait and not collected:
                    collect()  # a cycle of garbage may be what has a frame
                    collected = True
                wait = min(_SLICE, left)
            else:
                handle = ArrayHandle(buf, self._engine)
                return array_of(handle, self.key, self._publish).view(EditedArray)

    def _next(self, timeout_ms: int) -> int:
        handle = self._handle.value
        return with_room(self._engine, self._nbytes, lambda: core().stream_next(handle, timeout_ms))

    def __repr__(self) -> str:
        return f"<stream of heavy[{self.key!r}], at most {self.keep} frames>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a stream cannot be sent to another process; there, read its frames as "
            f"ctx.heavy[{self.key!r}]"
        )
