"""The state as Python sees it: one version, as it was, for ever."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .frozen import FrozenDict, FrozenLeaf, FrozenList, freeze, no_such_name
from .gone import STATE, refuse_attribute
from .structures import DELETE, REPLACE

__all__ = ["DELETE", "REPLACE", "FrozenDict", "FrozenList", "State", "decode_state"]

_RAW, _JSON, _PICKLE = 1, 2, 3


class State(Mapping[str, Any]):
    """A snapshot of an engine's state. Taking one is cheap; it never changes.

    Items and attributes are those of `data`: ``state["domain"]``, ``state.domain.rate``.

    Attributes:
        version: number of the version, 0 for an engine that nothing was committed to.
    """

    __slots__ = ("_data", "_heavy", "_load", "version")

    version: int
    _load: Callable[[], bytes | None] | None
    _heavy: Any
    _data: FrozenDict | None

    def __init__(self, version: int, load: Callable[[], bytes | None], heavy: Any) -> None:
        own = object.__setattr__  # ours refuses
        own(self, "version", version)
        own(self, "_load", load)
        own(self, "_heavy", heavy)
        own(self, "_data", None)

    @property
    def data(self) -> FrozenDict:
        """The values, as a read-only dict; decoded when first looked at."""
        data = self._data
        if data is None:
            load = self._load
            if load is None:  # another thread has decoded it since the look above
                assert self._data is not None
                return self._data
            encoded = load()
            data = decode_state(encoded) if encoded else FrozenDict()
            self._data = data  # before _load goes: who finds that gone finds this
            self._load = None
        return data

    @property
    def heavy(self) -> Any:
        """The arrays of this version: read-only views, by item, attribute and `get`."""
        return self._heavy

    def to_dict(self) -> dict[str, Any]:
        """The data as plain, writable dicts and lists."""
        return self.data.to_dict()

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        # compare_and_swap returns a State, also an empty one, and `if engine.state` means it.
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        data = self.data
        try:
            return data[name]
        except KeyError:
            refuse_attribute("state", name, STATE)
            known = {*data, "version", "data", "heavy"}
            raise AttributeError(no_such_name(name, known)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in State.__slots__:
            object.__setattr__(self, name, value)
            return
        raise AttributeError(
            f"a snapshot never changes: {name!r} cannot be set. Use "
            "engine.compare_and_swap(engine.state.version, data={…})."
        )

    def __repr__(self) -> str:
        return f"<theus.State version {self.version}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a State cannot be sent to another process: workers read ctx.state and ctx.heavy. "
            "Send the values that are needed, e.g. state.to_dict()."
        )


def decode_state(buffer: Any) -> FrozenDict:
    """The data of a state, from its encoding in ``docs/internals.md`` (codec 4).

    Args:
        buffer: bytes or anything with the buffer protocol.

    Returns:
        The values as nested read-only dicts. A value that is not a dict and stands at the root
        (an export of a single path) is found under the key ``""``.

    Raises:
        ValueError: the bytes are not such an encoding.
    """
    view = memoryview(buffer)
    try:
        return _decode(view)
    except (struct.error, IndexError) as failure:
        raise ValueError(f"not an encoded state: {failure}") from failure


def _decode(view: memoryview) -> FrozenDict:
    _version, count = struct.unpack_from("<QI", view, 0)
    at = 12
    root: dict[str, Any] = {}
    for _ in range(count):
        (components,) = struct.unpack_from("<H", view, at)
        at += 2
        path = []
        for _ in range(components):
            text, at = _bytes_at(view, at)
            path.append(str(text, "utf-8"))
        codec = view[at]
        encoded, at = _bytes_at(view, at + 1)
        _place(root, path, _leaf(codec, encoded, path))
    return _frozen_tree(root)


def _bytes_at(view: memoryview, at: int) -> tuple[memoryview, int]:
    (length,) = struct.unpack_from("<I", view, at)
    end = at + 4 + length
    if end > len(view):
        raise IndexError("it ends within a value")
    return view[at + 4 : end], end


class _Leaf:
    """A decoded value, so that a dict that is one value is not taken for an inner node."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _leaf(codec: int, encoded: memoryview, path: list[str]) -> Any:
    if codec == _JSON:
        value = json.loads(bytes(encoded))
        return {} if value == {} else _Leaf(value)
    if codec == _RAW:
        return _Leaf(bytes(encoded))
    if codec == _PICKLE:
        try:
            return _Leaf(pickle.loads(encoded))
        except Exception as failure:
            raise ValueError(
                f"the value at {'.'.join(path)!r} cannot be unpickled here: "
                f"{type(failure).__name__}: {failure}"
            ) from failure
    raise ValueError(f"the value at {'.'.join(path)!r} has an unknown codec {codec}")


def _place(root: dict[str, Any], path: list[str], value: Any) -> None:
    if not path:
        if isinstance(value, _Leaf):
            root[""] = value
        return
    node = root
    for component in path[:-1]:
        below = node.setdefault(component, {})
        if isinstance(below, _Leaf):
            raise ValueError(f"there is a value above {'.'.join(path)!r}")
        node = below
    node[path[-1]] = value


def _frozen_leaf(value: Any) -> Any:
    return FrozenLeaf(freeze(value)) if type(value) is dict else freeze(value)


def _frozen_tree(node: dict[str, Any]) -> FrozenDict:
    return FrozenDict(
        (key, _frozen_leaf(item.value) if isinstance(item, _Leaf) else _frozen_tree(item))
        for key, item in node.items()
    )
