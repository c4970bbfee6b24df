"""Pickling functions by value, with the name of their file.

Since 3.1.3 cloudpickle calls the file of every function that it pickles ``<dynamic-code>``. A
traceback from a worker would then name no file and show no source line, for exactly the functions
that people write in scripts and notebooks.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

__all__ = ["ByValuePickler"]


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, except that code keeps the name of its file.

    Subclasses that treat more types specially override `reducer_override`: a dispatch table that is
    set on an instance is not looked at.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.CodeType):
            make, parts = self.dispatch_table[types.CodeType](obj)
            return _code_in_file, (obj.co_filename, make, parts)
        return super().reducer_override(obj)


def _code_in_file(
    filename: str, make: Callable[..., types.CodeType], parts: tuple[Any, ...]
) -> types.CodeType:
    return make(*parts).replace(co_filename=filename)
