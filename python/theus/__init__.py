"""Worker processes that compute on shared arrays without copying them, and a versioned state that
changes only by compare-and-swap.

::

    from theus import TheusEngine, process

    engine = TheusEngine()
    engine.heavy.put("prices", prices)


    @process(parallel=True)
    def mean_of(ctx, column):
        return float(ctx.heavy["prices"][:, column].mean())


    means = list(engine.map(mean_of, range(8)))

Importing the package is cheap: numpy, the shared library and most of this package come with the
first engine that is opened.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._preflight import require_platform
from ._version import __version__

require_platform()

if TYPE_CHECKING:
    from .arrays import ShmArray, is_shared
    from .context import BaseDomainContext, BaseGlobalContext, BaseSystemContext, TaskContext
    from .contracts import ProcessContract, SemanticType, process
    from .engine import TheusEngine
    from .errors import (
        Conflict,
        ContextError,
        ContractViolationError,
        EngineClosed,
        ForkedProcessError,
        HeapFull,
        LargeArgumentWarning,
        RemoteError,
        SegmentGone,
        StatelessnessError,
        StatelessnessWarning,
        StreamFull,
        TaskTimeout,
        TheusError,
        TheusWarning,
        UnknownProcess,
        WorkerCrashed,
    )
    from .state import State
    from .structures import DELETE, REPLACE, StateUpdate

__all__ = [
    "DELETE",
    "REPLACE",
    "BaseDomainContext",
    "BaseGlobalContext",
    "BaseSystemContext",
    "Conflict",
    "ContextError",
    "ContractViolationError",
    "EngineClosed",
    "ForkedProcessError",
    "HeapFull",
    "LargeArgumentWarning",
    "ProcessContract",
    "RemoteError",
    "SegmentGone",
    "SemanticType",
    "ShmArray",
    "State",
    "StateUpdate",
    "StatelessnessError",
    "StatelessnessWarning",
    "StreamFull",
    "TaskContext",
    "TaskTimeout",
    "TheusEngine",
    "TheusError",
    "TheusWarning",
    "UnknownProcess",
    "WorkerCrashed",
    "__version__",
    "is_shared",
    "process",
]

_HOMES = {
    "arrays": ("ShmArray", "is_shared"),
    "context": ("BaseDomainContext", "BaseGlobalContext", "BaseSystemContext", "TaskContext"),
    "contracts": ("ProcessContract", "SemanticType", "process"),
    "engine": ("TheusEngine",),
    "errors": (
        "Conflict",
        "ContextError",
        "ContractViolationError",
        "EngineClosed",
        "ForkedProcessError",
        "HeapFull",
        "LargeArgumentWarning",
        "RemoteError",
        "SegmentGone",
        "StatelessnessError",
        "StatelessnessWarning",
        "StreamFull",
        "TaskTimeout",
        "TheusError",
        "TheusWarning",
        "UnknownProcess",
        "WorkerCrashed",
    ),
    "state": ("State",),
    "structures": ("DELETE", "REPLACE", "StateUpdate"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        from .gone import refuse_name

        refuse_name(__name__, name)
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
