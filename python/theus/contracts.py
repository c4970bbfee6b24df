"""What a process promises: the `process` decorator and the contract that it attaches."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar, overload

from . import names
from .errors import ContractViolationError, StatelessnessError
from .gone import refuse_name

__all__ = [
    "ContractViolationError",
    "ProcessContract",
    "SemanticType",
    "StatelessnessError",
    "contract_of",
    "process",
]

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "_pop_contract"


class SemanticType(str, enum.Enum):
    """What kind of work a process does; a note for readers, nothing is checked."""

    PURE = "pure"
    EFFECT = "effect"
    GUIDE = "guide"


class ProcessContract(NamedTuple):
    """What `process` was told about a function.

    Attributes:
        inputs: names of state paths (``"domain.rate"``, ``"heavy.prices"``) or call arguments
            that must be there when the process is submitted.
        outputs: state paths that its return value is committed to.
        semantic: what kind of work it is.
        errors: what it may raise, as names. Anything else arrives with a note that says which
            process raised it.
        side_effects: what else it does; not checked.
        parallel: whether it runs in the worker pool rather than in the calling process.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    semantic: SemanticType = SemanticType.EFFECT
    errors: tuple[str, ...] = ()
    side_effects: tuple[str, ...] = ()
    parallel: bool = False


@overload
def process(inputs: F, /) -> F: ...
@overload
def process(
    inputs: Iterable[str] | None = None,
    outputs: Iterable[str] | None = None,
    semantic: SemanticType = SemanticType.EFFECT,
    errors: Iterable[Any] | None = None,
    side_effects: Iterable[str] | None = None,
    parallel: bool = False,
) -> Callable[[F], F]: ...
def process(
    inputs: Any = None,
    outputs: Iterable[str] | None = None,
    semantic: SemanticType = SemanticType.EFFECT,
    errors: Iterable[Any] | None = None,
    side_effects: Iterable[str] | None = None,
    parallel: bool = False,
) -> Any:
    """Mark a function as a process: its first parameter is the context.

    The function itself is returned, so it stays callable and importable as before. Works bare
    (``@process``) and with arguments.

    Args:
        inputs: names, not data: state paths or call arguments that must be there at submit. With
            any, of ``ctx.domain`` and ``ctx.heavy`` nothing else can be read.
        outputs: state paths to which the return value is committed. One: the value. Several: a
            tuple by position or a dict by path; None in a place skips it. What is not parallel may
            also write them through ``ctx.domain``.
        semantic: a note for readers.
        errors: what it may raise, names or exception types: it arrives as it is. To anything else
            a process that is not parallel adds a note of where it comes from.
        side_effects: a note for readers.
        parallel: True: runs in the worker pool. False (default): in the calling process.

    Raises:
        TypeError: `inputs` or `outputs` hold something that is not a name.

    Example:
        >>> @process(parallel=True)
        ... def total(ctx, scale=1.0):
        ...     return float(ctx.heavy["prices"].sum()) * scale
    """
    if callable(inputs):
        return _attach(inputs, ProcessContract())
    contract = ProcessContract(
        inputs=_paths(inputs, "inputs"),
        outputs=_paths(outputs, "outputs"),
        semantic=semantic,
        errors=tuple(getattr(e, "__name__", str(e)) for e in errors or ()),
        side_effects=tuple(side_effects or ()),
        parallel=bool(parallel),
    )
    return lambda fn: _attach(fn, contract)


def contract_of(fn: Any) -> ProcessContract | None:
    """The contract of a decorated function, or None."""
    contract = getattr(fn, _ATTRIBUTE, None)
    return contract if isinstance(contract, ProcessContract) else None


def _attach(fn: F, contract: ProcessContract) -> F:
    try:
        setattr(fn, _ATTRIBUTE, contract)
    except (AttributeError, TypeError):
        raise TypeError(
            f"@process cannot mark {fn!r}: it takes no attributes. Write a function around it."
        ) from None
    names.note_decorated(fn)
    return fn


def _paths(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    example = f'{what}=["domain.rate", "heavy.prices"]'
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(
            f"@process({what}=…) takes a list of names, not data, but got {_describe(value)}. "
            f"Write names ({example}) and pass the data as arguments of execute(), large arrays "
            "through engine.heavy."
        )
    for item in value:
        if not isinstance(item, str):
            raise TypeError(
                f"@process({what}=[…]) takes names, not data, but got {_describe(item)}. "
                f"Write names ({example}) and pass the data as arguments of execute(), large "
                "arrays through engine.heavy."
            )
        if not item:
            raise TypeError(f"@process({what}=[…]): a name is empty")
    return tuple(sorted(value)) if isinstance(value, (set, frozenset)) else tuple(value)


def _describe(value: Any) -> str:
    kind = type(value)
    shape = getattr(value, "shape", None)
    suffix = f" of shape {shape}" if isinstance(shape, tuple) else ""
    return f"a {kind.__module__}.{kind.__qualname__}{suffix}"


if not TYPE_CHECKING:  # with it a checker takes any name for one that is there

    def __getattr__(name: str) -> NoReturn:
        refuse_name(__name__, name)
