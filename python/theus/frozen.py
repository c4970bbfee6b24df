"""Read-only dicts and lists, which is what a snapshot of the state is made of.

They are real dicts and lists, so ``json.dumps`` and equality work; what would change them raises.
Copies (``copy``, ``deepcopy``, pickling, ``.copy()``) are plain and writable again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

__all__ = ["FrozenDict", "FrozenLeaf", "FrozenList", "freeze", "thaw"]


class FrozenDict(dict[Any, Any]):
    """A dict that cannot change and whose string keys are attributes as well.

    Example:
        >>> engine.state.data.domain.rate == engine.state.data["domain"]["rate"]
        True
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            pass
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(no_such_name(name, self))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(k for k in self if isinstance(k, str))})

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a snapshot of the state never changes. Change the state with "
            "engine.compare_and_swap(engine.state.version, data={…}); a writable copy is "
            ".to_dict()."
        )

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = _refuse
    __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def copy(self) -> dict[Any, Any]:
        """A plain dict with the same values."""
        return dict(self)

    def to_dict(self) -> dict[Any, Any]:
        """A plain, writable copy, all the way down."""
        plain: dict[Any, Any] = thaw(self)
        return plain

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        import copy

        return copy.deepcopy(dict(self), memo)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class FrozenLeaf(FrozenDict):
    """A dict that is one value of the state, and no inner part of it: it changes as a whole."""

    __slots__ = ()


class FrozenList(list[Any]):
    """A list that cannot change."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a snapshot of the state never changes. Change the state with "
            "engine.compare_and_swap(engine.state.version, data={…}); a writable copy is list(x)."
        )

    __setitem__ = __delitem__ = _refuse
    __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def copy(self) -> list[Any]:
        """A plain list with the same items."""
        return list(self)

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        import copy

        return copy.deepcopy(list(self), memo)

    def __reduce__(self) -> Any:
        return list, (list(self),)


def freeze(value: Any) -> Any:
    """`value` with its plain dicts and lists made read-only, and its arrays too."""
    kind = type(value)
    if kind is dict:
        return FrozenDict((key, freeze(item)) for key, item in value.items())
    if kind is list:
        return FrozenList(freeze(item) for item in value)
    if kind is tuple:
        return tuple(freeze(item) for item in value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        value.flags.writeable = False
    return value


def thaw(value: Any) -> Any:
    """`value` with its read-only dicts and lists made plain again."""
    if isinstance(value, FrozenDict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, FrozenList):
        return [thaw(item) for item in value]
    if type(value) is tuple:
        return tuple(thaw(item) for item in value)
    return value


def no_such_name(name: Any, known: Iterable[Any]) -> str:
    """The text for a name that is not there: the closest one, and those that are."""
    import difflib  # only errors need it

    names = [k for k in known if isinstance(k, str)]
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(sorted(names)[:20]) + (", …" if len(names) > 20 else "")
    return f"no {name!r} here{hint} (there is: {shown or 'nothing'})"
