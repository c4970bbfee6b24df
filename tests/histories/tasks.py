"""What clients have workers do, which are clients then and write down what they see and do."""

from __future__ import annotations

from typing import Any

import journal
from theus import StateUpdate, process


@process(parallel=True)
def read(ctx: Any, name: str) -> None:
    """Read the state. The call began when the task was submitted: that is the version it reads."""
    values = journal.values_of(ctx.domain)
    journal.own().answer(name, version=ctx.state.version, values=values)


@process(parallel=True)
def put(ctx: Any, name: str, client: int, keys: list[str], value: str) -> StateUpdate:
    """Set keys, whatever they are by now."""
    journal.own().call(name, client, "put", sets=keys, value=value)
    return StateUpdate(data={f"domain.{key}": value for key in keys})


@process(parallel=True)
def swap(ctx: Any, name: str, client: int, keys: list[str], value: str) -> StateUpdate:
    """Set keys, unless they have changed since the version that is read here."""
    expected = ctx.state.version
    journal.own().call(name, client, "swap", expected=expected, sets=keys, value=value)
    data = {f"domain.{key}": value for key in keys}
    return StateUpdate(data=data, assert_version=expected)


@process(outputs=["domain.n"])
def add(ctx: Any) -> None:
    """Add one, in the host; it runs again when somebody came in between."""
    ctx.domain.n += 1


@process(outputs=["domain.n"])
async def add_in_coroutine(ctx: Any) -> None:
    """The same on the loop."""
    ctx.domain.n += 1
