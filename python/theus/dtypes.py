"""numpy dtypes as text, as they travel in descriptors and references."""

from __future__ import annotations

import ast
import functools
from typing import Any

import numpy as np

__all__ = ["descr_of", "dtype_of"]


def descr_of(dtype: np.dtype[Any]) -> str:
    """The text of a dtype: ``<f8``, or a Python literal list for one with fields.

    Raises:
        TypeError: its elements are Python objects or of no fixed size, or it cannot be described.

    Example:
        >>> descr_of(np.dtype(np.float64))
        '<f8'
    """
    return _descr_of(np.dtype(dtype))


@functools.lru_cache(maxsize=1024)
def _descr_of(dtype: np.dtype[Any]) -> str:
    if dtype.hasobject:
        raise TypeError(
            f"dtype {dtype} holds Python objects, which lie in one process's own memory and "
            "cannot be shared. Use numbers, datetime64, or fixed-size text (dtype 'U20', 'S20'); "
            "for text with few different values, integer codes."
        )
    if dtype.names is None:
        text = dtype.str
    else:
        try:
            text = repr(np.lib.format.dtype_to_descr(dtype))
        except ValueError as error:
            raise TypeError(f"dtype {dtype} cannot be shared: {error}") from None
    if dtype_of(text) != dtype:
        raise TypeError(
            f"dtype {dtype} cannot be shared: numpy has no complete description of it. Convert "
            "the array to a plain dtype first."
        )
    return text


@functools.lru_cache(maxsize=1024)
def dtype_of(descr: str) -> np.dtype[Any]:
    """The dtype that `descr_of` described.

    Raises:
        TypeError: the text is no description of a dtype.
    """
    if descr.startswith(("[", "(")):
        try:
            fields = ast.literal_eval(descr)
        except (ValueError, SyntaxError):
            raise TypeError(f"{descr!r} is no description of a dtype") from None
        return np.lib.format.descr_to_dtype(fields)
    return np.dtype(descr)
