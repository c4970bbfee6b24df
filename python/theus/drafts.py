"""Changes to the data of a snapshot, written as if it were a plain dict, and noted for a commit."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from .frozen import FrozenDict, FrozenLeaf, FrozenList, no_such_name, thaw
from .paths import is_name, join_path
from .structures import DELETE, REPLACE
from .updates import is_inner, pickled

__all__ = ["AttributeDict", "Draft", "Guard", "MissingName"]

Path = tuple[str, ...]

# What nobody can change in place.
_CONSTANT = (type(None), bool, int, float, complex, str, bytes)
_ABSENT = object()


class Guard(Protocol):
    """Who says whether a path may be read and changed."""

    def may_read(self, path: Path) -> bool:
        """Whether it, or something below it, may be read."""

    def require_read(self, path: Path) -> None:
        """Raise if it must not be read."""

    def may_write(self, path: Path) -> bool:
        """Whether something at or below it may be."""

    def may_replace(self, path: Path) -> bool:
        """Whether it may be changed as a whole."""

    def require_write(self, path: Path) -> None:
        """Raise if it must not be changed."""


class MissingName(KeyError):
    """A name that is not there. Its text takes time, and most are caught unread."""

    def __init__(self, name: str, known: list[str], where: str = "") -> None:
        super().__init__(name)
        self._known = known
        self._where = where

    def __str__(self) -> str:
        return self._where + no_such_name(self.args[0], self._known)


class AttributeDict(MutableMapping[str, Any]):
    """What is written by item and by attribute alike."""

    __slots__ = ()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value; where there is none, `default` is set, and what stands for it is given."""
        if key not in self:
            self[key] = default
        return self[key]

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):  # reading it would give that
            raise AttributeError(
                f"{name!r} is a name of the dict itself; write [{name!r}] = … instead"
            )
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError as missing:
            raise AttributeError(str(missing)) from None


class Draft(AttributeDict):
    """A dict of the state that can be written: items and attributes are the same.

    Nobody else sees a change before it is committed. Lists and other values that can change in
    place are copies; they are written back when they differ in the end. What was read is noted as
    well, so that a commit can depend on it. A dict that is assigned is copied, a list is not.

    Args:
        base: what the snapshot holds here.
        path: where that is.
        reads: gets the paths that are read; None for what is new, on which nothing can depend.
        guard: who is asked before a path is read or changed.

    Example:
        >>> with engine.edit() as state:
        ...     state.domain.counter += 1
        ...     state.domain["names"].append("x")
        ...     del state.domain.old
    """

    __slots__ = ("_base", "_changed", "_guard", "_path", "_reads")

    _base: Mapping[str, Any]
    _changed: dict[str, Any]  # by key: DELETE, a Draft, or a _Value
    _path: Path
    _reads: dict[Path, None] | None
    _guard: Guard | None

    def __init__(
        self,
        base: Mapping[str, Any],
        path: Path,
        reads: dict[Path, None] | None,
        guard: Guard | None = None,
    ) -> None:
        own = object.__setattr__  # ours sets items
        own(self, "_base", base)
        own(self, "_changed", {})
        own(self, "_path", path)
        own(self, "_reads", reads)
        own(self, "_guard", guard)

    # -- reading -------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` where there is none."""
        found = self._find(key)
        return default if found is _ABSENT else found

    def __getitem__(self, key: str) -> Any:
        found = self._find(key)
        if found is _ABSENT:
            raise MissingName(key, list(self._visible()))
        return found

    def _find(self, key: str) -> Any:
        if self._guard is not None and isinstance(key, str):  # a path has no other names
            self._guard.require_read((*self._path, key))
        return self._take(key)

    def _take(self, key: str) -> Any:
        changed = self._changed.get(key)
        if changed is None:
            value = self._base.get(key, _ABSENT)
            if value is _ABSENT or type(value) in _CONSTANT:
                self._note(key)
                return value
            if _is_inner(value):
                changed = Draft(value, (*self._path, key), self._reads, self._guard)
            else:
                self._note(key)
                if self._guard is not None and not self._guard.may_write((*self._path, key)):
                    return value  # as it is: whatever would change it raises
                changed = _Value.copy_of(value)
            self._changed[key] = changed
        if changed is DELETE:
            return _ABSENT
        return changed.value if isinstance(changed, _Value) else changed

    def _note(self, key: str | None) -> None:
        """Note that something was read; None: all that is here."""
        if self._reads is None:
            return
        if key is None:
            self._reads[self._path] = None
        elif is_name(key):  # nothing can be under any other
            self._reads[(*self._path, key)] = None

    def _keys(self) -> Iterator[str]:
        for key in self._base:
            if self._changed.get(key) is not DELETE:
                yield key
        for key, value in self._changed.items():
            if value is not DELETE and key not in self._base:
                yield key

    def _visible(self) -> Iterator[str]:
        """The keys that may be read."""
        guard = self._guard
        return (k for k in self._keys() if guard is None or guard.may_read((*self._path, k)))

    def __iter__(self) -> Iterator[str]:
        self._note(None)
        return self._visible()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if self._guard is not None:
            self._guard.require_read((*self._path, key))
        changed = self._changed.get(key)
        if changed is None or (isinstance(changed, Draft) and key in self._base):
            self._note(key)
            return key in self._base
        return changed is not DELETE

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle probe for these
            raise AttributeError(name)
        if name.startswith("_") and name not in self._keys():  # notebooks and others, for these
            raise AttributeError(no_such_name(name, self._visible()))
        found = self._find(name)
        if found is _ABSENT:
            raise AttributeError(no_such_name(name, self._visible()))
        return found

    def to_dict(self) -> dict[str, Any]:
        """A plain copy, all the way down."""
        return {
            key: value.to_dict() if isinstance(value, Draft) else copy.deepcopy(thaw(value))
            for key, value in self.items()
        }

    def __repr__(self) -> str:
        return f"Draft({self.to_dict()!r})"

    def __reduce__(self) -> Any:
        return dict, (self.to_dict(),)

    # -- writing -------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"keys of the state are strings, not {type(key).__name__}")
        if not key:
            raise ValueError("a key of the state is empty, which no path can name")
        if value is DELETE:
            self.pop(key, None)
            return
        self._ask(key)
        self._changed[key] = self._new(key, _plain(value))

    def _new(self, key: str, value: Any) -> Draft | _Value:
        if not _is_inner(value):
            return _Value(value)
        draft = Draft({}, (*self._path, key), None)
        draft.update(value)
        return draft

    def _ask(self, *below: str) -> None:
        if self._guard is not None:
            self._guard.require_write((*self._path, *below))

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a value and give it; where there is none, `default`, if that is given."""
        found = self._find(key)
        if found is not _ABSENT:
            del self[key]
            return found.to_dict() if isinstance(found, Draft) else found
        if default:
            return default[0]
        raise MissingName(key, list(self._visible()))

    def clear(self) -> None:
        """Remove everything."""
        for key in list(self):
            del self[key]

    def __delitem__(self, key: str) -> None:
        self._ask(key)
        if key not in self:
            raise MissingName(key, list(self._visible()))
        if key in self._base:
            self._changed[key] = DELETE
        else:
            del self._changed[key]
            self._note(key)  # that there is none: somebody else may set one

    def merge(self, path: Path, value: Any) -> None:
        """Do what compare_and_swap does with a path and a value: dicts merge by key."""
        *above, key = path
        if _is_inner(value) and value:
            for name, item in value.items():
                self.merge((*path, name), item)
        elif value is DELETE:
            self._remove(above, key)
        elif not _is_inner(value) or self._inner(path, make=False) is None:
            # {} changes nothing where there is a dict.
            self._at(above)[key] = value

    def _remove(self, above: Sequence[str], key: str) -> None:
        """Remove what is there, and as the state does, dicts of which nothing is left."""
        if self._reads is not None:
            self._reads[(*self._path, *above, key)] = None  # a commit would have touched it
        found = self._inner(above, make=False)
        if found is None or key not in found._keys():
            return
        del found[key]
        if above and found._is_empty():
            self._remove(above[:-1], above[-1])

    def _at(self, path: Sequence[str]) -> Draft:
        """The dict at a path, made where there is none."""
        found = self._inner(path, make=True)
        assert found is not None
        return found

    def _inner(self, names: Sequence[str], *, make: bool) -> Draft | None:
        """The dict at a path, or None where there is none; nothing is noted as read."""
        node = self
        for key in names:
            if key not in node._changed:
                if _is_inner(node._base.get(key)):
                    node._take(key)
                elif make and key not in node._base:  # only what is put there is a change
                    place = (*node._path, key)
                    node._changed[key] = Draft({}, place, node._reads, node._guard)
            found = node._changed.get(key)
            if not isinstance(found, Draft):
                if not make:
                    return None
                node[key] = {}
                found = node._changed[key]
            node = found
        return node

    # -- the outcome ---------------------------------------------------------------------------

    def changes(self) -> dict[str, Any]:
        """What was changed, as `compare_and_swap` takes it: values by dotted path."""
        found: dict[str, Any] = {}
        for key, value in self._changed.items():
            path = (*self._path, key)
            if value is DELETE:
                found[join_path(path)] = DELETE
            elif isinstance(value, _Value):
                if value.differs():
                    found[join_path(path)] = _whole(value.value)
            elif self._replaces(key, value):
                found[join_path(path)] = REPLACE(value.to_dict())
            else:
                found.update(value.changes())
        self._note_witness()
        return found

    def _replaces(self, key: str, value: Draft) -> bool:
        """Whether a dict takes the place of what is there, instead of changing something in it."""
        if value._reads is None and self._reads is not None:
            return True
        # The state itself has no dict without anything in it: an empty one is a value.
        if not value._is_empty() or self._base.get(key) == {}:
            return False
        return self._guard is None or self._guard.may_replace((*self._path, key))

    def _note_witness(self) -> None:
        """When keys are removed and others stay, depend on one of those: if it goes as well, the
        state would lose the dict, and that nobody has asked for."""
        if DELETE in self._changed.values():
            stays = next(self._keys(), None)
            if stays is not None:
                self._note(stays)

    def _is_empty(self) -> bool:
        return next(self._keys(), None) is None


class _Value:
    """A value that is new, or a copy of one that may be changed in place."""

    __slots__ = ("_before", "value")

    def __init__(self, value: Any, before: bytes | None = None) -> None:
        self.value = value
        self._before = before  # its pickle; b"": it has none that says anything. None: it is new

    @classmethod
    def copy_of(cls, frozen: Any) -> _Value:
        """A writable copy of a value of a snapshot."""
        try:
            value = copy.deepcopy(thaw(frozen))
        except Exception:
            return cls(frozen, b"")
        before = _pickle(value)
        # An object whose pickle has a clock or a counter in it would seem to change by itself.
        return cls(value, before if before == _pickle(value) else b"")

    def differs(self) -> bool:
        # Not by ==, which compares objects without __eq__ by identity, and arrays item by item.
        if self._before is None:
            return True
        return self._before != b"" and _pickle(self.value) != self._before


def _pickle(value: Any) -> bytes:
    try:
        return pickled(value)
    except Exception:
        return b""


def _is_inner(value: Any) -> bool:
    """Whether it is a dict of the state, and not one that is a value."""
    return not isinstance(value, FrozenLeaf) and is_inner(value)


def _plain(value: Any) -> Any:
    if isinstance(value, REPLACE):
        value = value.value
    if isinstance(value, Draft):
        return value.to_dict()
    return thaw(value) if isinstance(value, (FrozenDict, FrozenList)) else value


def _whole(value: Any) -> Any:
    return REPLACE(value) if isinstance(value, dict) else value
