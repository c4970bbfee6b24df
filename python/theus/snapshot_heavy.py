"""The heavy arrays of one version of the state, in the host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._core import Handle, core
from ._status import NotFound, NotPublished
from .allocation import allocate, dimensions
from .arrays import ShmArray
from .context import HeavyView
from .host_arrays import ArrayHandle, array_of
from .updates import c_text

__all__ = ["SnapshotHeavy"]


class SnapshotHeavy(HeavyView):
    """The arrays of one version, in the host. Keeps that version readable while it lives."""

    __slots__ = ("_engine", "_found", "_keys", "_missed", "_snap")

    def __init__(self, engine: int, snap: Handle) -> None:
        self._engine = engine
        self._snap = snap
        self._found: dict[str, ShmArray] = {}
        self._missed: set[str] = set()
        self._keys: list[str] | None = None

    @property
    def snap(self) -> int:
        """The library's handle of the version."""
        return self._snap.value

    def _find(self, key: str) -> ShmArray | None:
        array = self._found.get(key)
        if array is None:
            try:
                buf = core().get(self._snap.value, c_text(key, "key"))
            except NotFound:
                self._missed.add(key)
                return None
            except ValueError:  # what no key can be is not there
                return None
            array = self._found[key] = array_of(ArrayHandle(buf, self._engine), key)
        return array

    def _is_unpublished(self, key: str) -> bool:
        try:
            core().release(core().get(self._snap.value, c_text(key, "key")))
        except NotPublished:
            return True
        except (NotFound, ValueError):
            return False
        return False

    def keys(self) -> Sequence[str]:
        """The keys of this version, sorted."""
        if self._keys is None:
            self._keys = json.loads(core().heavy_keys(self._snap.value))
        return list(self._keys)

    def read_keys(self) -> list[str]:
        """The keys that were looked at, those without an array included."""
        return [*self._found, *self._missed]

    def cow(self, key: str) -> np.ndarray[Any, Any]:
        """A private, writable copy."""
        source = self[key]
        return np.array(source, subok=False, order="K")

    def alloc(self, key: str, shape: Any, dtype: Any = np.float64) -> ShmArray:
        """A zeroed array for a result; published when it is returned as an output."""
        name = c_text(key, "key")
        del name  # only checked: until it is published, the key is nobody's business
        return allocate(self._engine, None, key, dimensions(shape), np.dtype(dtype), 0, None)
