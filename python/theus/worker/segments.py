"""The shared memory that this worker has mapped.

The host tells when a segment is no longer needed (RETIRE) and wants to know when this worker has
let go of it (RETIRED). A segment is let go of when the last map of it is gone, which the garbage
collector decides: arrays of the user keep it.
"""

from __future__ import annotations

import collections
import contextlib
import os
from typing import TYPE_CHECKING, Any

from ..mapping import PAGE_SIZE, Mapping, map_private, map_shared

if TYPE_CHECKING:
    import numpy as np

    from ..arrays import ShmArray
    from .wire import WireArray

# Page faults, one for each page, cost more than the kernel takes to enter all pages at once; but a
# large array is perhaps written in a few places only.
_POPULATED = 32 << 20


# So many arrays that tasks have read lately are kept for the next one, and so many descriptions of
# arrays, if they are no longer than so many bytes.
_LATELY = 64
_SHORT = 1024


class Segments:
    """Maps by segment number, and how many maps of each there are.

    Attributes:
        described: arrays by the bytes that describe them: task after task comes with the same.
    """

    def __init__(self) -> None:
        self.described: dict[bytes, list[WireArray]] = {}
        # By segment and offset: to hash all of a description takes as long as the rest.
        self._views: dict[tuple[int, int], tuple[WireArray, ShmArray, np.dtype[Any]]] = {}
        self._shared: dict[int, Mapping] = {}
        self._maps: collections.Counter[int] = collections.Counter()
        self._retired: set[int] = set()
        # Maps for writing, and descriptors for reading, of the task that runs.
        self._written: list[tuple[Mapping, int]] = []
        # Filled by finalizers, which may run in the middle of anything: a deque's append needs no
        # lock, and `settle` does the rest at a moment of its own choosing.
        self._unmapped: collections.deque[int] = collections.deque()
        self._given_back: collections.deque[int] = collections.deque()

    def find(self, segment: int) -> Mapping | None:
        """The map for reading, if there is one."""
        return self._shared.get(segment)

    def map_shared(self, segment: int, size: int, fd: int, *, writable: bool = False) -> Mapping:
        """Map a segment to read it in place; kept until it is retired. Closes `fd`.

        Raises:
            OSError: the kernel refused, even after the maps that nobody uses were given up.
        """
        try:
            found = self._shared.get(segment)
            if found is None:
                try:
                    found = self._map(segment, size, fd, writable)
                except OSError:
                    self._views.clear()
                    self._shared.clear()  # too many maps; what is in use stays mapped
                    found = self._map(segment, size, fd, writable)
                self._shared[segment] = found
            return found
        finally:
            os.close(fd)

    def describe(self, described: bytes, arrays: list[WireArray]) -> None:
        """Keep what these bytes mean, for the next task that comes with them."""
        if len(described) <= _SHORT:
            if len(self.described) >= _LATELY:
                self.described.clear()
            self.described[described] = arrays

    def keep_view(self, described: WireArray, array: ShmArray) -> None:
        """Keep an array over a shared map, for tasks that read it; until the map is retired."""
        if len(self._views) >= _LATELY:
            self._views.clear()
        self._views[described.segment, described.offset] = described, array, array.dtype

    def view_of(self, described: WireArray) -> ShmArray | None:
        """A view of such an array, whose shape a task may change; None: there is none."""
        known = self._views.get((described.segment, described.offset))
        if known is None:
            return None
        kept, array, dtype = known
        if kept is not described and kept != described:
            return None
        # A task gets at what is kept here as the base of its view.
        if array.shape != described.shape or array.strides != described.strides:
            return None
        return array.view() if array.dtype is dtype else None

    def map_private(self, segment: int, size: int, fd: int, reservation: int = 0) -> Mapping:
        """Map a segment so that what is written stays here. Closes `fd`.

        Args:
            segment: its number.
            size: bytes to map.
            fd: its descriptor.
            reservation: the number under which the host counts these pages until they are
                unmapped; 0: it does not.

        Raises:
            OSError: the kernel refused.
        """

        def unmapped(segment: int) -> None:
            self._unmapped.append(segment)
            if reservation:
                self.give_back(reservation)

        try:
            made = map_private(fd, max(size, PAGE_SIZE), segment=segment, on_unmap=unmapped)
        except OSError:
            if reservation:
                self.give_back(reservation)
            raise
        finally:
            os.close(fd)
        self._maps[segment] += 1
        return made

    def give_back(self, reservation: int) -> None:
        """Nothing here uses the pages of a reservation any more."""
        self._given_back.append(reservation)

    def map_written(self, segment: int, size: int, fd: int) -> Mapping:
        """Map an output of a map to write rows of it, until `end_writing`. Closes `fd`.

        Raises:
            OSError: the kernel refused.
        """
        try:
            # A second description, for reading only: see Mapping.make_private.
            reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                made = self._map(segment, size, fd, True)
            except BaseException:
                os.close(reader)
                raise
            self._written.append((made, reader))
            return made
        finally:
            os.close(fd)

    def end_writing(self) -> None:
        """A task is over: what it still writes to its rows reaches nobody."""
        while self._written:
            mapping, reader = self._written.pop()
            try:
                # If the kernel refuses, the host finds that somebody may write, and copies.
                with contextlib.suppress(OSError):
                    mapping.make_private(reader)
            finally:
                os.close(reader)

    def map_output(self, segment: int, size: int, fd: int) -> Mapping:
        """Map a granted segment to fill it. `fd` is still the caller's."""
        return self._map(segment, size, fd, True, populate=size <= _POPULATED)

    def _map(
        self, segment: int, size: int, fd: int, writable: bool, *, populate: bool = False
    ) -> Mapping:
        made = map_shared(
            fd,
            max(size, PAGE_SIZE),
            writable=writable,
            populate=populate,
            segment=segment,
            on_unmap=self._unmapped.append,
        )
        self._maps[segment] += 1
        return made

    def retire(self, segment: int) -> None:
        """The host needs it no longer: keep no map for later."""
        self._retired.add(segment)
        self._shared.pop(segment, None)

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has anything to do."""
        return bool(self._unmapped or self._retired or self._given_back)

    def settle(self) -> list[int]:
        """The retired segments that this process has no map of any more, and the reservations
        that it does not need any more; each is told once.
        """
        if self._retired:
            for place in list(self._views):  # another thread of the task's may add some
                if place[0] in self._retired:
                    self._views.pop(place, None)
        with contextlib.suppress(IndexError):
            while True:
                segment = self._unmapped.popleft()
                self._maps[segment] -= 1
                if self._maps[segment] <= 0:
                    del self._maps[segment]
        free = [segment for segment in self._retired if segment not in self._maps]
        self._retired.difference_update(free)
        with contextlib.suppress(IndexError):
            while True:
                free.append(self._given_back.popleft())
        return free
