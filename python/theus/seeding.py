"""The first content of the state, from whatever a program calls its context."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .context import BaseDomainContext, BaseGlobalContext, BaseSystemContext
from .paths import join_path

__all__ = ["data_of"]

# What contexts of the earlier theus are made of; they become dicts, anything else is a value.
_BASES = (BaseSystemContext, BaseGlobalContext, BaseDomainContext)
_NAMES = {"domain_ctx": "domain"}


def data_of(context: Any) -> dict[str, Any]:
    """What a context puts into ``state.data``, by escaped path.

    Args:
        context: None, a mapping, a dataclass, or an object with attributes. Its parts become
            dicts when they are dataclasses or theus' context classes; else they are values.

    Raises:
        TypeError: it has no named parts.
    """
    if context is None:
        return {}
    if isinstance(context, Mapping):
        parts = dict(context)
    else:
        attributes = _attributes(context)
        if attributes is None:
            raise TypeError(
                f"context= takes a dict, a dataclass or an object with attributes, not "
                f"{type(context).__qualname__}"
            )
        parts = attributes
    wrong = [key for key in parts if not isinstance(key, str)]
    if wrong:
        raise TypeError(f"context= has a key that is not a string: {wrong[0]!r}")
    return {
        join_path((_NAMES.get(key, key),)): _tree(value)
        for key, value in parts.items()
        if value is not None or not isinstance(context, BaseSystemContext)
    }


def _tree(value: Any) -> Any:
    if type(value) is dict:
        return {key: _tree(item) for key, item in value.items()}
    if isinstance(value, _BASES) or _is_dataclass_instance(value):
        return {key: _tree(item) for key, item in (_attributes(value) or {}).items()}
    return value


def _attributes(value: Any) -> dict[str, Any] | None:
    if isinstance(value, _BASES):  # may have fields of a dataclass and other attributes
        return {**_fields(value), **_public(value)}
    if _is_dataclass_instance(value):
        return _fields(value)
    try:
        return _public(value)
    except TypeError:
        return None


def _fields(value: Any) -> dict[str, Any]:
    names = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    return {f.name: getattr(value, f.name) for f in names}


def _public(value: Any) -> dict[str, Any]:
    return {key: item for key, item in vars(value).items() if not key.startswith("_")}


def _is_dataclass_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
