"""Several changes of the state that are committed together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .drafts import Draft
from .frozen import no_such_name
from .gone import TRANSACTION, refuse_attribute, refuse_signal
from .paths import join_path, outermost, parse_path
from .structures import DELETE

if TYPE_CHECKING:
    from .arrays import ShmArray
    from .commits import Committer
    from .state import State

__all__ = ["HeavyDraft", "Transaction"]


_ALL = ""  # in place of a key: that none was added, replaced or removed


class _Open:
    """Whether a transaction can still be written; says no by an exception."""

    def __init__(self) -> None:
        self.ended = ""

    def may_read(self, path: tuple[str, ...]) -> bool:
        return True

    def require_read(self, path: tuple[str, ...]) -> None:
        pass

    def may_write(self, path: tuple[str, ...]) -> bool:
        return True

    def may_replace(self, path: tuple[str, ...]) -> bool:
        return True

    def require_write(self, path: tuple[str, ...]) -> None:
        if self.ended:
            raise RuntimeError(
                f"this transaction {self.ended}; take another one: engine.transaction()"
            )


class HeavyDraft(Mapping[str, Any]):
    """The arrays of a transaction: read those of its version, set what it is to publish."""

    __slots__ = ("_changed", "_open", "_reads", "_state")

    def __init__(self, state: State, open_: _Open) -> None:
        self._state = state
        self._open = open_
        self._changed: dict[str, Any] = {}
        self._reads: dict[str, None] = {}

    def __getitem__(self, key: str) -> ShmArray:
        value = self._changed.get(key)
        if value is None:
            if isinstance(key, str) and key:
                self._reads[key] = None
            array: ShmArray = self._state.heavy[key]
            return array
        if value is DELETE:
            raise KeyError(no_such_name(key, self))
        changed: ShmArray = value
        return changed

    def __setitem__(self, key: str, value: Any) -> None:
        """Publish an array under `key` with the commit."""
        if not isinstance(key, str) or not key:
            raise TypeError(f"keys of heavy arrays are strings that are not empty, not {key!r}")
        self._open.require_write(())
        self._changed[key] = value

    def __delitem__(self, key: str) -> None:
        self[key]
        self._open.require_write(())
        self._changed[key] = DELETE

    def __contains__(self, key: object) -> bool:
        if key in self._changed:
            return self._changed[key] is not DELETE
        if isinstance(key, str) and key:
            self._reads[key] = None
        return key in self._state.heavy

    def __iter__(self) -> Iterator[str]:
        self._reads[_ALL] = None
        for key in {**dict.fromkeys(self._state.heavy.keys()), **self._changed}:
            if self._changed.get(key) is not DELETE:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Transaction:
    """Changes on top of one version of the state, committed as one by a compare-and-swap.

    As a context manager it commits when the block ends, and drops everything when an exception
    leaves it. The commit fails if somebody else has changed in between what the transaction
    changes, or what it has read by `data` or `heavy`; the list of heavy keys, or their number,
    depends on all arrays. Items and attributes are those of `data`.

    Attributes:
        state: the version that it stands on; what is read there is not checked.
        data: that version's data with the changes so far, see `Draft`.
        heavy: its arrays, see `HeavyDraft`.
        version: of the state that it made; None before, and if it changed nothing.

    Example:
        >>> with engine.transaction() as tx:
        ...     tx.domain.balance -= 10
        ...     tx.update(data={"domain.log.last": "withdrawn"}, heavy={"curve": array})
    """

    __slots__ = ("_committer", "_open", "data", "heavy", "state", "version")

    def __init__(self, state: State, committer: Committer) -> None:
        own = object.__setattr__  # ours sets items of the data
        own(self, "state", state)
        own(self, "_open", _Open())
        own(self, "data", Draft(state.data, (), {}, self._open))
        own(self, "heavy", HeavyDraft(state, self._open))
        own(self, "version", None)
        own(self, "_committer", committer)

    state: State
    data: Draft
    heavy: HeavyDraft
    version: int | None
    _committer: Committer
    _open: _Open

    def update(
        self,
        data: Mapping[str, Any] | None = None,
        heavy: Mapping[str, Any] | None = None,
        signal: None = None,
    ) -> None:
        """Change what `compare_and_swap` would: values by dotted path, arrays by key.

        Args:
            data: values by dotted path.
            heavy: arrays by key.
            signal: not supported.

        Raises:
            TypeError: `signal` is given.
            ValueError: a path is empty, or has an empty component.
        """
        refuse_signal("update", signal)
        self._open.require_write(())
        for path, value in (data or {}).items():
            self.data.merge(parse_path(path), value)
        for key, value in (heavy or {}).items():
            self.heavy[key] = value

    def commit(self) -> int | None:
        """Commit now; the version that it made, or None if there was nothing to change.

        Raises:
            ContextError: somebody else changed the same, or what was read; nothing is changed.
            StatelessnessError: a value cannot leave this process.
        """
        self._open.require_write(())
        self._open.ended = "has failed to commit"
        data, heavy = self.data.changes(), self.heavy._changed
        if data or heavy:
            object.__setattr__(
                self,
                "version",
                self._committer.commit(
                    self.state.version,
                    data,
                    heavy,
                    read=[join_path(path) for path in outermost(self.data._reads or ())],
                    read_heavy=list(self.heavy._reads),
                ),
            )
        self._open.ended = "was committed"
        return self.version

    def discard(self) -> None:
        """Drop all changes, unless it has ended before."""
        self._open.ended = self._open.ended or "was dropped"

    def __enter__(self) -> Transaction:
        self._open.require_write(())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()
        elif not self._open.ended:
            self.commit()

    # -- the data, as if it were this ----------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.data[key] = value

    def __delitem__(self, key: str) -> None:
        del self.data[key]

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self.data, name)
        except AttributeError:
            refuse_attribute("transaction", name, TRANSACTION)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            raise AttributeError(f"{name!r} is the transaction's own; write data[{name!r}] = …")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        delattr(self.data, name)

    def __repr__(self) -> str:
        how = self._open.ended or "is open"
        return f"<theus.Transaction on version {self.state.version}, which {how}>"
