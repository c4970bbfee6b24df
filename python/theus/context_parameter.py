"""Whether a function takes the context."""

from __future__ import annotations

import inspect
from typing import Any

from .contracts import contract_of

__all__ = ["passes_ctx"]


def passes_ctx(fn: Any) -> bool:
    """Whether the context is a function's first argument.

    It is for a function that `process` decorated, and for one whose first parameter is called
    ``ctx`` or annotated with TaskContext.
    """
    first = _first_parameter(fn)
    if first is None:
        return False
    if contract_of(fn) is not None or first.name == "ctx":
        return True
    annotation = first.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] == "TaskContext"


def _first_parameter(fn: Any) -> inspect.Parameter | None:
    try:
        parameters = iter(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # builtins without a signature
        return None
    first = next(parameters, None)
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    if first is None or first.kind not in positional:
        return None
    if first.kind is inspect.Parameter.VAR_POSITIONAL and contract_of(fn) is None:
        return None
    return first
