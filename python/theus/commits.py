"""The one way by which Python changes an engine's state."""

from __future__ import annotations

import contextvars
import ctypes as c
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import _abi as abi
from ._core import Handle, core
from .allocation import copy_into_segment, mark_published, with_room
from .arrays import ShmArray
from .host_arrays import whole_handle
from .outputs import Commit
from .stateless import type_name
from .structures import DELETE
from .updates import Change, c_text, changes_of

__all__ = ["Committer", "own_versions"]

own_versions: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar(
    "theus_own_versions", default=None
)
"""Gets the versions that are committed meanwhile, by whatever a process of the host calls."""


class Committer:
    """Compare-and-swap on one engine.

    Args:
        engine: owns the library's handle.
        strict: whether any other change since the expected version is a conflict.
        lookup: what the current state holds at a path.
    """

    def __init__(
        self, engine: Handle, *, strict: bool, lookup: Callable[[tuple[str, ...]], Any]
    ) -> None:
        self._handle = engine
        self._strict = strict
        self._lookup = lookup

    @property
    def engine(self) -> int:
        """The library's handle of the engine."""
        return self._handle.value

    def commit(
        self,
        expected: int | None,
        data: Mapping[str, Any],
        heavy: Mapping[str, Any],
        *,
        read: Iterable[str] = (),
        read_heavy: Iterable[str] = (),
    ) -> int:
        """Apply all, as one new version, or nothing.

        Args:
            expected: the version that the caller has read; None: whatever is current.
            data: values by dotted path, see `changes_of`.
            heavy: arrays by key. One that is under construction, or published already, is taken
                as it is; anything else is copied into shared memory once.
            read: dotted paths that must not have changed either; "": all data.
            read_heavy: the same of keys; "": all of them.

        Returns:
            The new version.

        Raises:
            ContextError: something that is touched changed after `expected`.
            ValueError: `expected` lies above the current version.
            StatelessnessError: a value cannot leave this process.
        """
        if not isinstance(heavy, Mapping):
            raise TypeError(
                f"heavy= takes a dict of keys and arrays, not {type_name(heavy)}: "
                "heavy={'prices': array}"
            )
        arrays = {key: self._shared(key, value) for key, value in heavy.items()}
        checks = [_check(abi.CHECK, path) for path in read]
        checks += [_check(abi.CHECK_HEAVY, key) for key in read_heavy]
        heavy_updates = [_heavy_update(key, arrays[key], self.engine) for key in heavy]
        strict = self._strict and expected is not None
        target = abi.ANY_VERSION if expected is None else expected

        def updates() -> list[abi.Update]:
            # Now: what changes_of looks up may change while arrays wait for room.
            data_updates = [_data_update(change) for change in changes_of(data, self._lookup)]
            return [*checks, *data_updates, *heavy_updates]

        version = self._swap(target, updates, strict=strict)
        for key, array in arrays.items():
            if array is not None:
                mark_published(array, key, version)
        return version

    def _swap(self, target: int, updates: Callable[[], list[abi.Update]], *, strict: bool) -> int:
        # A result that was given a small array is copied when it is put under a key, and so is an
        # output that somebody still writes: there may be no room at first.
        version = with_room(
            self.engine, 0, lambda: core().cas(self.engine, target, updates(), strict=strict)
        )
        own = own_versions.get()
        if own is not None:
            own.append(version)
        return version

    def publish(self, array: ShmArray, key: str) -> int:
        """Make `array` the current version of `key`, whatever that was."""
        return self.commit(None, {}, {key: array})

    def publish_buf(self, buf: int, key: str) -> int:
        """The same for an array of which only the library's handle is there."""
        update = abi.fresh(abi.Update, op=abi.SET_HEAVY, path=key.encode(), buf=buf)
        return self._swap(abi.ANY_VERSION, lambda: [update], strict=False)

    def apply(self, commit: Commit) -> None:
        """Commit what a process returned."""
        if commit:
            self.commit(commit.expected, commit.data, commit.heavy)

    def _shared(self, key: str, value: Any) -> ShmArray | None:
        c_text(key, "key")
        if value is DELETE:
            return None
        if value is None:
            raise TypeError(f"heavy[{key!r}] is None; to remove an array, give theus.DELETE")
        if isinstance(value, ShmArray) and whole_handle(value, self.engine) is not None:
            return value
        return copy_into_segment(self.engine, key, value)


def _check(op: int, path: str) -> abi.Update:
    return abi.fresh(abi.Update, op=op, path=path.encode())


def _data_update(change: Change) -> abi.Update:
    payload = c.c_char_p(change.payload)
    update = abi.fresh(
        abi.Update,
        op=change.op,
        path=change.path.encode(),
        codec=change.codec,
        ptr=c.cast(payload, c.c_void_p).value,
        len=len(change.payload),
    )
    update.kept = payload  # the struct holds a bare address
    return update


def _heavy_update(key: str, array: ShmArray | None, engine: int) -> abi.Update:
    if array is None:
        return abi.fresh(abi.Update, op=abi.DELETE_HEAVY, path=key.encode())
    handle = whole_handle(array, engine)
    assert handle is not None
    return abi.fresh(abi.Update, op=abi.SET_HEAVY, path=key.encode(), buf=handle.value)
