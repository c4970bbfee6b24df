"""Small things that processes and orchestrators exchange."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .errors import Conflict, ContextError
from .gone import refuse_name, refuse_signal

if TYPE_CHECKING:
    from .arrays import ShmArray

__all__ = ["DELETE", "REPLACE", "Conflict", "ContextError", "ShmArray", "StateUpdate"]


class _Delete:
    """The type of `DELETE`; there is one."""

    _one: _Delete | None = None

    def __new__(cls) -> _Delete:
        if cls._one is None:
            cls._one = super().__new__(cls)
        return cls._one

    def __repr__(self) -> str:
        return "theus.DELETE"

    def __reduce__(self) -> str:
        return "DELETE"


DELETE: Final = _Delete()
"""As a value in a compare-and-swap: remove this path, or this heavy key."""


class REPLACE:
    """As a value in a compare-and-swap: replace what is there instead of merging into it.

    Args:
        value: what shall stand there afterwards.

    Example:
        >>> engine.compare_and_swap(v, data={"config": REPLACE({"rate": 1.0})})
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"theus.REPLACE({self.value!r})"


class StateUpdate:
    """What a process returns to change the state itself, without `outputs=` in its contract.

    Args:
        key: a dotted path in the state's data that gets `val`, or ``"heavy.<key>"``.
        val: the value for `key`.
        data: further updates of the data, as for `compare_and_swap`.
        heavy: arrays by key; one that the process allocated with ``ctx.heavy.alloc`` is published
            without a copy.
        signal: not supported.
        assert_version: commit only if nothing that is touched changed after this version; without
            it the update is applied to whatever version is current.

    Raises:
        TypeError: `signal` is given, or there is a value without a key.

    Example:
        >>> @process(parallel=True)
        ... def scale(ctx):
        ...     out = ctx.heavy.alloc("scaled", ctx.heavy["raw"].shape)
        ...     np.multiply(ctx.heavy["raw"], 2.0, out=out)
        ...     return StateUpdate(data={"scaled.by": 2.0}, heavy={"scaled": out})
    """

    __slots__ = ("assert_version", "data", "heavy", "key", "val")

    def __init__(
        self,
        key: str | None = None,
        val: Any = None,
        data: Mapping[str, Any] | None = None,
        heavy: Mapping[str, Any] | None = None,
        signal: Any = None,
        assert_version: int | None = None,
    ) -> None:
        refuse_signal("StateUpdate", signal)
        if key is None and val is not None:
            raise TypeError("StateUpdate(val=…) needs key=, the path that the value goes to")
        self.key = key
        self.val = val
        self.data: dict[str, Any] = dict(data or {})
        self.heavy: dict[str, Any] = dict(heavy or {})
        self.assert_version = assert_version

    def __repr__(self) -> str:
        given = [f"{name}={getattr(self, name)!r}" for name in ("key", "val") if self.key]
        given += [f"{name}={sorted(getattr(self, name))}" for name in ("data", "heavy")]
        if self.assert_version is not None:
            given.append(f"assert_version={self.assert_version}")
        return f"StateUpdate({', '.join(given)})"


def __getattr__(name: str) -> Any:
    if name != "ShmArray":
        refuse_name(__name__, name)
    from .arrays import ShmArray  # imports numpy, and so only when it is asked for

    return ShmArray
