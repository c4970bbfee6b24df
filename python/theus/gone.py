"""What the Rust Theus had and this one has not, with what to use instead.

A program that was written for it then stops where it asks for such a thing, and reads there what to
do. ``docs/migrating-from-rust-theus.md`` has the same with examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

__all__ = [
    "COMMANDS",
    "CONTEXT",
    "ENGINE",
    "MODULES",
    "NAMES",
    "OPTIONS",
    "STATE",
    "TRANSACTION",
    "gone_text",
    "refuse_attribute",
    "refuse_module",
    "refuse_name",
    "refuse_option",
    "refuse_signal",
]

_SIGNALS = (
    "Put the fact into the state, compare_and_swap(v, data={'stop': True}), and let whoever waits "
    "for it read engine.state; or await what engine.execute returns."
)
_FLUX = (
    "Write the steps in Python: await engine.execute(…) one after the other, with if and while "
    "between them."
)
_AUDIT = (
    "Check in the process and raise, or record with ctx.log; engine.stats()['conflicts'] counts "
    "lost swaps."
)
_OUTBOX = (
    "Append the message to a list in the state with the same commit, and send what is there "
    "afterwards: engine.update(path, fn) takes it out."
)
_ZONES = (
    "Names have no prefixes with a meaning: declare what may be read and written in inputs= and "
    "outputs=, and put arrays into engine.heavy."
)
_NAMESPACES = (
    "Each engine has a state of its own: TheusEngine({'domain': {…}, 'tasks': {…}}), with paths "
    "such as 'tasks.active'."
)
_ADMIN = "Nobody is above a contract: name what is written in outputs=, or use engine.edit()."
_POOL = (
    "Each engine has worker processes of its own: @process(parallel=True), TheusEngine(workers=…), "
    "THEUS_POOL_SIZE. With THEUS_USE_PROCESSES=0 they are threads."
)
_CONFLICT = "Catch theus.ContextError; the cas_retries of engine.execute says how often to retry."
_MEMORY = "engine.heavy has the arrays: alloc, put, edit, get. Memory goes with its last user."
_READ_ONLY = "engine.state and its data never change and are read-only: theus.State."
_LOCKS = "Nobody waits for a lock: with engine.edit() as state changes a version of one's own."
_SCHEMA = "Check values in the process, before they are returned."

MODULES: Mapping[str, str] = {
    "audit": _AUDIT,
    "config": _AUDIT,
    "orchestrator": _FLUX,
    "parallel": _POOL,
    "workflow": _FLUX,
    "zones": _ZONES,
}
"""Submodules; each has a file that says so."""

NAMES: Mapping[str, str] = {
    "AdminTransaction": _ADMIN,
    "AppendOnly": _ZONES,
    "ContextZone": _ZONES,
    "FrozenDict": _READ_ONLY,
    "FunctionResult": "Return the value itself, or a theus.StateUpdate.",
    "HeavyZoneAllocator": _MEMORY,
    "HeavyZoneWrapper": "ctx.heavy has the arrays, by item, attribute and get.",
    "Immutable": _ZONES,
    "LockManager": _LOCKS,
    "LockedContextMixin": _LOCKS,
    "ManagedAllocator": _MEMORY,
    "Mutable": _ZONES,
    "Namespace": _NAMESPACES,
    "NamespacePolicy": _NAMESPACES,
    "NamespaceRegistry": _NAMESPACES,
    "OutboxMsg": _OUTBOX,
    "SchemaViolationError": _SCHEMA,
    "SecurityViolationError": "It is theus.ContractViolationError.",
    "SignalHub": _SIGNALS,
    "SignalReceiver": _SIGNALS,
    "SupervisorProxy": _READ_ONLY,
    "TheusEncoder": "json.dumps(engine.state.to_dict()) needs no encoder.",
    "TransactionError": _CONFLICT,
    "resolve_zone": _ZONES,
}
"""What could be imported from theus, or from one of its modules that are still there."""

ENGINE: Mapping[str, str] = {
    "attach_worker": _OUTBOX,
    "commit_state": "Use engine.compare_and_swap(engine.state.version, data={…}).",
    "execute_process_async": "Use await engine.execute(…).",
    "execute_workflow": _FLUX,
    "log": "Use logging.getLogger(…); processes have ctx.log.",
    "outbox": _OUTBOX,
    "process_outbox": _OUTBOX,
    "report_conflict": _CONFLICT,
    "report_success": _CONFLICT,
    "set_audit_system": _AUDIT,
    "set_schema": _SCHEMA,
    "set_strict_cas": "Say it when the engine is made: TheusEngine(strict_cas=True).",
    "set_strict_guards": "Contracts always hold.",
    "strict_cas": "Say it when the engine is made: TheusEngine(strict_cas=True).",
    "strict_guards": "Contracts always hold.",
}
"""Attributes of an engine."""

OPTIONS: Mapping[str, str] = {
    "audit_recipe": _AUDIT,
    "namespaces": _NAMESPACES,
    "strict_guards": "Leave it out: contracts always hold.",
    "write_timeout_ms": "Leave it out: nobody waits for a lock.",
}
"""Keyword arguments of an engine."""

CONTEXT: Mapping[str, str] = {
    "domain_ctx": "It is ctx.domain.",
    "global_ctx": "Use ctx.state.global_ctx.",
    "local": "Use local variables.",
    "meta": _ZONES,
    "outbox": _OUTBOX,
    "signal": _SIGNALS,
    "transaction": "Write ctx.domain, or return the values of outputs=; it is one commit.",
    "tx": "Write ctx.domain, or return the values of outputs=; it is one commit.",
}
"""Attributes of ctx."""

STATE: Mapping[str, str] = {
    "domain_proxy": "Use state.domain.",
    "get_meta_logs": _AUDIT,
    "global": "Use state.global_ctx, or what the engine's context calls it.",
    "log_meta": _AUDIT,
    "meta": _ZONES,
    "restrict_view": "A state is read-only as it is.",
    "signal": _SIGNALS,
    "signals": _SIGNALS,
}
"""Attributes of a state."""

TRANSACTION: Mapping[str, str] = {
    "flush_outbox": _OUTBOX,
    "outbox": _OUTBOX,
    "pending_data": "It is to_dict() of the transaction's data.",
}
"""Attributes of a transaction."""

COMMANDS: Mapping[str, str] = {
    "audit": _AUDIT,
    "init": "There is no layout to make: a program is a Python file, see the README.",
    "schema": "There are no schema files: an engine's context is any dict or dataclass.",
}
"""Commands of ``theus``."""


def refuse_name(module: str, name: str) -> NoReturn:
    """What a module raises for a name that it does not have.

    Raises:
        ImportError: the Rust Theus had it. Not an AttributeError, of which ``from … import …``
            drops the text.
        AttributeError: it was never there.
    """
    if name in NAMES:
        raise ImportError(gone_text(f"{module}.{name}", NAMES[name]), name=module)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def refuse_module(module: str) -> NoReturn:
    """What a submodule raises of which only the name is left.

    Raises:
        ImportError: always. Not a ModuleNotFoundError, of which ``from theus import …`` drops the
            text.
    """
    raise ImportError(gone_text(module, MODULES[module.rpartition(".")[2]]), name=module)


def refuse_attribute(owner: str, name: str, table: Mapping[str, str]) -> None:
    """Raise for an attribute that is missing, if the Rust Theus had it.

    Raises:
        AttributeError: it had.
    """
    if name in table:
        raise AttributeError(gone_text(f"{owner}.{name}", table[name]))


def refuse_option(function: str, name: str) -> NoReturn:
    """Raise for a keyword argument that a function does not take.

    Raises:
        TypeError: always.
    """
    if name in OPTIONS:
        raise TypeError(gone_text(f"{function}({name}=…)", OPTIONS[name]))
    raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def refuse_signal(function: str, signal: object) -> None:
    """Raise if a signal is given; there are none.

    Raises:
        TypeError: one is.
    """
    if signal is not None:
        raise TypeError(f"{function}(signal=…): theus has no signals. {_SIGNALS}")


def gone_text(what: str, instead: str) -> str:
    """That something is gone, and what to use instead."""
    return (
        f"{what} was part of the Rust Theus, and is gone. {instead} "
        "See docs/migrating-from-rust-theus.md."
    )
