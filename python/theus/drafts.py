"""Changes to the data of a snapshot, written as if it were a plain dict, and noted for a commit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from .frozen import FrozenDict, FrozenList, no_such_name, thaw
from .structures import DELETE, REPLACE
from .updates import join_path

__all__ = ["Draft"]

Path = tuple[str, ...]

# What nobody can change in place.
_CONSTANT = (type(None), bool, int, float, complex, str, bytes)


class Draft(MutableMapping[str, Any]):
    """A dict of the state that can be written: items and attributes are the same.

    Nobody else sees a change before it is committed. Lists and other values that can change in
    place are copies; they are written back when they differ in the end. What was read is noted as
    well, so that a commit can depend on it.

    Args:
        base: what the snapshot holds here.
        path: where that is.
        reads: gets the paths that are read; None for what is new, on which nothing can depend.
        guard: is asked before each change of a path, and raises if it must not be.

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
    _guard: Callable[[Path], None] | None

    def __init__(
        self,
        base: Mapping[str, Any],
        path: Path,
        reads: dict[Path, None] | None,
        guard: Callable[[Path], None] | None = None,
    ) -> None:
        own = object.__setattr__  # ours sets items
        own(self, "_base", base)
        own(self, "_changed", {})
        own(self, "_path", path)
        own(self, "_reads", reads)
        own(self, "_guard", guard)

    # -- reading -------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if key not in self._changed:
            if key not in self._base:
                self._note((key,))
                raise KeyError(no_such_name(key, self._keys()))
            value = self._base[key]
            if type(value) in _CONSTANT:
                self._note((key,))
                return value
            self._changed[key] = self._writable(key, value)
        value = self._changed[key]
        if value is DELETE:
            raise KeyError(no_such_name(key, self._keys()))
        return value.value if isinstance(value, _Value) else value

    def _writable(self, key: str, value: Any) -> Draft | _Value:
        """What stands for a value of the snapshot: to be written, and not changed yet."""
        if _is_inner(value):
            return Draft(value, (*self._path, key), self._reads, self._guard)
        self._note((key,))
        return _Value(copy.deepcopy(thaw(value)), is_new=False)

    def _note(self, below: Path) -> None:
        if self._reads is not None:
            self._reads[(*self._path, *below)] = None

    def _keys(self) -> Iterator[str]:
        for key in {**self._base, **self._changed}:
            if self._changed.get(key) is not DELETE:
                yield key

    def __iter__(self) -> Iterator[str]:
        self._note(())
        return self._keys()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if key not in self._changed:
            self._note((key,))
            return key in self._base
        return self._changed[key] is not DELETE

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle probe for these
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as missing:
            raise AttributeError(*missing.args) from None

    def to_dict(self) -> dict[str, Any]:
        """A plain copy, all the way down."""
        return {
            key: value.to_dict() if isinstance(value, Draft) else copy.deepcopy(value)
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
            return _Value(value, is_new=True)
        draft = Draft({}, (*self._path, key), None)
        draft.update(value)
        return draft

    def _ask(self, key: str) -> None:
        if self._guard is not None:
            self._guard((*self._path, key))

    def __delitem__(self, key: str) -> None:
        self._ask(key)
        if key not in self:
            raise KeyError(no_such_name(key, self._keys()))
        if key in self._base:
            self._changed[key] = DELETE
        else:
            del self._changed[key]

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):  # reading it would give the method
            raise AttributeError(f"{name!r} is a method of dicts; write [{name!r}] = … instead")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError as missing:
            raise AttributeError(*missing.args) from None

    def merge(self, path: Path, value: Any) -> None:
        """Do what compare_and_swap does with a path and a value: dicts merge by key."""
        *above, key = path
        if _is_inner(value) and value:
            for name, item in value.items():
                self.merge((*path, name), item)
        elif value is DELETE:
            self._remove(above, key)
        elif not _is_inner(value) or self._inner(path, make=False) is None:
            self._at(above)[key] = value

    def _remove(self, above: Sequence[str], key: str) -> None:
        """Remove what is there, and as the state does, dicts of which nothing is left."""
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

    def _inner(self, path: Sequence[str], *, make: bool) -> Draft | None:
        """The dict at a path, or None where there is none; nothing is noted as read."""
        node = self
        for key in path:
            if key not in node._changed:
                if _is_inner(node._base.get(key)):
                    node[key]
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
            path = join_path((*self._path, key))
            if value is DELETE:
                found[path] = DELETE
            elif isinstance(value, _Value):
                if value.differs():
                    found[path] = _whole(value.value)
            elif value._is_new(self._reads) or (value._is_empty() and self._base.get(key) != {}):
                # The state itself has no dict without anything in it: an empty one is a value.
                found[path] = REPLACE(value.to_dict())
            else:
                found.update(value.changes())
        return found

    def _is_new(self, reads: dict[Path, None] | None) -> bool:
        """Whether it takes the place of what is there, instead of changing something in it."""
        return self._reads is None and reads is not None

    def _is_empty(self) -> bool:
        return next(self._keys(), None) is None


class _Value:
    """A value that is new, or a copy of one that may be changed in place."""

    __slots__ = ("_before", "value")

    def __init__(self, value: Any, *, is_new: bool) -> None:
        self.value = value
        self._before = None if is_new else pickle.dumps(value, 5)

    def differs(self) -> bool:
        # Not by ==, which compares objects without __eq__ by identity, and arrays item by item.
        if self._before is None:
            return True
        try:
            return pickle.dumps(self.value, 5) != self._before
        except Exception:
            return True  # the commit says what is wrong with it


def _is_inner(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _plain(value: Any) -> Any:
    if isinstance(value, REPLACE):
        value = value.value
    if isinstance(value, Draft):
        return value.to_dict()
    return thaw(value) if isinstance(value, (FrozenDict, FrozenList)) else value


def _whole(value: Any) -> Any:
    return REPLACE(value) if isinstance(value, dict) else value
