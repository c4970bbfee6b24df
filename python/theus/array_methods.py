"""ndarray's methods as they are on a ShmArray.

Those that make new data give plain arrays, and those that write say why they must not: numpy alone
would say "assignment destination is read-only" and leave the user with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .arrays import Origin, ShmArray

__all__ = ["adapt", "unless_view"]

_Method = Callable[..., Any]

# fmt: off
# Their results have memory of their own.
_FRESH = (
    "__copy__", "__deepcopy__", "all", "any", "argmax", "argmin", "argpartition", "argsort",
    "choose", "clip", "compress", "copy", "cumprod", "cumsum", "dot", "flatten", "max", "mean",
    "min", "nonzero", "prod", "ptp", "repeat", "round", "searchsorted", "std", "sum", "take",
    "trace", "var",
)
# Their results may be views or not.
_EITHER = ("astype", "byteswap", "conj", "conjugate", "ravel", "reshape")
# They write.
_WRITING = (
    "__iadd__", "__iand__", "__ifloordiv__", "__ilshift__", "__imatmul__", "__imod__", "__imul__",
    "__ior__", "__ipow__", "__irshift__", "__isub__", "__itruediv__", "__ixor__", "__setitem__",
    "fill", "itemset", "partition", "put", "setfield", "setflags", "sort",
)
# fmt: on


def adapt(cls: type[ShmArray]) -> None:
    """Put ndarray's methods on `cls`, with their results and errors changed as said above."""
    for names, wrap in ((_FRESH, _fresh), (_EITHER, _either), (_WRITING, _writing)):
        for name in names:
            method = getattr(np.ndarray, name, None)  # ptp and itemset left with numpy 2
            if method is not None:
                setattr(cls, name, functools.wraps(method)(wrap(method)))


def unless_view(result: Any) -> Any:
    """A plain ndarray, unless the result still lies in shared memory."""
    if isinstance(result, np.ndarray) and getattr(result, "_memory", result) is None:
        return result.view(np.ndarray)
    return result


def _fresh(method: _Method) -> _Method:
    def call(self: ShmArray, *args: Any, **kwargs: Any) -> Any:
        return method(self.view(np.ndarray), *args, **kwargs)

    return call


def _either(method: _Method) -> _Method:
    def call(self: ShmArray, *args: Any, **kwargs: Any) -> Any:
        return unless_view(method(self, *args, **kwargs))

    return call


def _writing(method: _Method) -> _Method:
    def call(self: ShmArray, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except ValueError:
            if self.flags.writeable or self._memory is None:
                raise
            raise ValueError(_why_read_only(self._memory.origin)) from None

    return call


def _why_read_only(origin: Origin) -> str:
    key = repr(origin.key) if origin.key else "key"
    return (
        f"{origin.name} is read-only: what is published does not change, others are reading it. "
        f"In a worker take ctx.heavy.cow({key}), a private copy, or return new data; in the host "
        f"make its next version with engine.heavy.edit({key})."
    )
