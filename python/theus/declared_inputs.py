"""Whether what a contract names as inputs is there when the process is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .context_parameter import passes_ctx
from .contracts import ProcessContract
from .errors import ContractViolationError
from .frozen import no_such_name
from .outputs import HEAVY
from .paths import parse_path
from .session import Session
from .state import State
from .updates import c_text, lookup_in

__all__ = ["checked_inputs", "heavy_keys"]


def heavy_keys(contract: ProcessContract | None) -> list[bytes]:
    """Those among the inputs, for the library: their arrays are sent along with a task."""
    if contract is None or not contract.inputs:
        return []
    return [c_text(n[len(HEAVY) :], "key") for n in contract.inputs if n.startswith(HEAVY)]


def checked_inputs(
    session: Session,
    contract: ProcessContract | None,
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> State | None:
    """The version to run on when the contract names inputs, which must all be there.

    Raises:
        ContractViolationError: one is neither an argument of this call nor in the state.
    """
    if contract is None or not contract.inputs:
        return None
    state = session.state()
    given = {*kwargs, *_bound(fn, args)}
    for name in contract.inputs:
        if name.startswith(HEAVY):
            key = name[len(HEAVY) :]
            if key not in state.heavy:
                raise _missing(fn, name, state.heavy._missing(key))
        elif name not in given and lookup_in(state.data)(parse_path(name)) is None:
            raise _missing(fn, name, _nearest(name, given, state.data))
    return state


def _nearest(name: str, given: set[str], data: Mapping[str, Any]) -> str:
    """What there is in place of a path, as far down as the state has it."""
    *above, last = parse_path(name)
    below = lookup_in(data)(tuple(above)) if above else None
    if isinstance(below, Mapping):
        return f"{'.'.join(above)}: {no_such_name(last, below)}"
    return no_such_name(name, {*given, *data})


def _missing(fn: Callable[..., Any], name: str, why: str) -> ContractViolationError:
    return ContractViolationError(
        f"process {getattr(fn, '__name__', fn)!r} declares the input {name!r}, which is neither an "
        f"argument of this call nor in the state: {why}"
    )


def _bound(fn: Callable[..., Any], args: Sequence[Any]) -> list[str]:
    """Names of the parameters that positional arguments fill."""
    if not args:
        return []
    names = [p.name for p in inspect.signature(fn).parameters.values()]
    return names[int(passes_ctx(fn)) :][: len(args)]
