"""From what a caller writes to what the library commits: merging, and encoding of values.

``{"a.b": 1, "c": {"d": 2}}`` sets the two leaves a→b and c→d and touches nothing beside them. A
value that JSON gives back exactly is stored as JSON, so that a C program can read it; any other is
pickled.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _abi as abi
from . import stateless
from .errors import LargeArgumentWarning
from .paths import join_path, parse_path, require_c_text
from .stateless import StrictPickler
from .structures import DELETE, REPLACE

__all__ = [
    "Change",
    "c_text",
    "changes_of",
    "is_inner",
    "lookup_in",
    "pickled",
]

LARGE = 1 << 20


class Change(NamedTuple):
    """One operation on the data: SET or DELETE, an escaped path, and the encoded value."""

    op: int
    path: str
    codec: int = abi.CODEC_NONE
    payload: bytes = b""


def changes_of(
    data: Mapping[str, Any], lookup: Callable[[tuple[str, ...]], Any] | None = None
) -> list[Change]:
    """The operations that `data` stands for.

    Args:
        data: values by dotted path. Dicts with string keys merge by key; `DELETE` removes;
            `REPLACE` does not merge.
        lookup: what the state holds at a path now (None for nothing); asked only for an empty
            dict, which changes nothing where there is a dict already.

    Raises:
        TypeError: a path is not a string.
        ValueError: a path is empty, or has an empty component.
        StatelessnessError: a value cannot leave this process.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"data= takes a dict of paths and values, not {stateless.type_name(data)}")
    changes: list[Change] = []
    for name, value in data.items():
        if not isinstance(name, str):
            raise TypeError(f"data= has a path that is not a string: {name!r}")
        changes += _merge(parse_path(name), value, f"data[{name!r}]", lookup)
    return changes


def _merge(
    path: tuple[str, ...],
    value: Any,
    place: str,
    lookup: Callable[[tuple[str, ...]], Any] | None,
) -> Iterator[Change]:
    if value is DELETE:
        yield Change(abi.DELETE, join_path(path))
    elif isinstance(value, REPLACE):
        yield Change(abi.DELETE, join_path(path))
        yield from _merge(path, value.value, place, None)
    elif not is_inner(value):
        yield _leaf(path, value, place)
    elif value:
        for key, item in value.items():
            require_c_text(key, "key")
            if not key:
                raise ValueError(f"{place} has an empty key, which no path can name")
            yield from _merge((*path, key), item, f"{place}[{key!r}]", lookup)
    elif lookup is None or not isinstance(lookup(path), dict):
        yield Change(abi.SET, join_path(path), abi.CODEC_JSON, b"{}")


def is_inner(value: Any) -> bool:
    """Whether it is a dict whose keys can be names of a path."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _leaf(path: tuple[str, ...], value: Any, place: str) -> Change:
    text = _exact_json(value)
    if text is not None:
        return Change(abi.SET, join_path(path), abi.CODEC_JSON, text)
    return Change(abi.SET, join_path(path), abi.CODEC_PICKLE, _pickled(value, place))


def _exact_json(value: Any) -> bytes | None:
    """JSON text that reads back as exactly this value, or None if there is none."""
    try:
        if not _survives_json(value):
            return None
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (RecursionError, UnicodeEncodeError):
        return None


def _survives_json(value: Any) -> bool:
    kind = type(value)
    if value is None or kind in (bool, str):
        return True
    if kind is int:
        # Python itself refuses to read back longer ones.
        return bool(-(1 << 2048) < value < (1 << 2048))
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(_survives_json(item) for item in value)
    if kind is dict and value:
        return all(type(k) is str and _survives_json(v) for k, v in value.items())
    return False


def pickled(value: Any) -> bytes:
    """The pickle that the state holds of a value.

    Raises:
        Exception: it cannot be pickled.
    """
    return _dump(value)[0]


def _dump(value: Any) -> tuple[bytes, int]:
    """The pickle of a value, and how many bytes of arrays are in it."""
    file = io.BytesIO()
    pickler = _LeafPickler(file, protocol=5)
    pickler.dump(value)
    return file.getvalue(), pickler.array_bytes


def _pickled(value: Any, place: str) -> bytes:
    try:
        text, array_bytes = _dump(value)
    except Exception as failure:
        raise stateless.explain(value, place, failure) from failure
    if array_bytes >= LARGE:
        warnings.warn(
            f"{place} holds arrays of {array_bytes:,} bytes, which every reader of the "
            "state copies. engine.heavy.put(key, array) shares them without a copy.",
            LargeArgumentWarning,
            stacklevel=stateless.outside(),
        )
    return text


class _LeafPickler(StrictPickler):
    """Pickles a value of the state: complete in itself, shared arrays included."""

    array_bytes = 0

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            self.array_bytes += obj.nbytes
            if type(obj) is not np.ndarray and getattr(obj, "_memory", None) is not None:
                # A reference would dangle when the array's key is gone.
                return np.array(obj, subok=False).__reduce_ex__(5)
        return super().reducer_override(obj)


def c_text(text: str, what: str) -> bytes:
    """A name as a C string.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty or cannot be one.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, not {stateless.type_name(text)}")
    if not text:
        raise ValueError(f"{what} is empty")
    require_c_text(text, what)
    return text.encode()


def lookup_in(data: Mapping[str, Any]) -> Callable[[tuple[str, ...]], Any]:
    """A `lookup` for `changes_of` over decoded data."""

    def lookup(path: tuple[str, ...]) -> Any:
        node: Any = data
        for component in path:
            if not isinstance(node, Mapping) or component not in node:
                return None
            node = node[component]
        return node

    return lookup
