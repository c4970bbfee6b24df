"""Clients of one engine, in threads and in coroutines, alone or by way of a worker.

Each makes random calls, one after the other, and writes every one down before and after.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import journal
import tasks
from theus import ContextError, TheusEngine, WorkerCrashed

Runs = tuple[Any, dict[str, Any]]  # a process and its arguments


class Client:
    """One that makes calls.

    Args:
        engine: what they are made of.
        number: which client this is.
        seed: what its choices follow from.
    """

    def __init__(self, engine: TheusEngine, number: int, seed: str) -> None:
        self._engine = engine
        self._number = number
        self._random = Random(f"{seed} client {number}")
        self._journal = journal.own()
        self._seen = engine.state.version

    def in_thread(self, calls: int) -> None:
        """Make so many calls, and wait in each for its end."""
        for _ in range(calls):
            for process, arguments in self._any_call(tasks.add):
                error = None
                try:
                    self._engine.run(process, **arguments)
                except (ContextError, WorkerCrashed) as failure:
                    error = failure
                self._note_end(arguments["name"], process, error)

    async def in_coroutine(self, calls: int) -> None:
        """The same on the loop."""
        for _ in range(calls):
            for process, arguments in self._any_call(tasks.add_in_coroutine):
                error = None
                try:
                    await self._engine.execute(process, **arguments)
                except (ContextError, WorkerCrashed) as failure:
                    error = failure
                self._note_end(arguments["name"], process, error)
            await asyncio.sleep(0)

    def _any_call(self, add: Any) -> Iterator[Runs]:
        """A call that is made here, or what has to be run for it."""
        own: list[Callable[[], None]] = [self._read, self._swap, self._transaction, self._update]
        by_process: list[Callable[[], Runs]] = [
            self._read_in_worker,
            self._put_in_worker,
            self._swap_in_worker,
            lambda: self._add_by_process(add),
        ]
        if self._random.random() < 0.6:
            self._random.choice(own)()
        else:
            yield self._random.choice(by_process)()

    # -- calls that are made here --------------------------------------------------------------

    def _read(self) -> Any:
        name = self._call("read")
        state = self._engine.state
        self._journal.answer(name, version=state.version, values=journal.values_of(state.domain))
        self._seen = state.version
        return state

    def _swap(self) -> None:
        """A compare-and-swap on the version that it saw last, which is often old."""
        keys, value = self._keys(), self._value()
        name = self._call("swap", expected=self._seen, sets=keys, value=value)
        data = {f"domain.{key}": value for key in keys}
        try:
            self._engine.compare_and_swap(self._seen, data=data)
        except ContextError as lost:
            self._lose(name, lost)
        else:
            self._journal.answer(name, won=True)

    def _transaction(self) -> None:
        """Read the state, and set keys if nothing that was read has changed by then."""
        name = self._call("read")
        tx = self._engine.edit()
        begun = tx.state.version
        values = journal.values_of(tx.state.domain)
        self._journal.answer(name, version=begun, values=values)
        keys, checks, value = self._keys(), self._keys(), self._value()
        for key in checks:
            assert tx.domain[key] == values[key]
        for key in keys:
            tx.domain[key] = value
        operation = {"expected": begun, "checks": checks, "sets": keys, "value": value}
        name = self._call("swap", **operation)
        try:
            tx.commit()
        except ContextError as lost:
            self._lose(name, lost)
        else:
            self._journal.answer(name, version=tx.version, won=True)
            self._seen = tx.version or 0

    def _update(self) -> None:
        name = self._call("add")
        total = self._engine.update("domain.n", lambda n: n + 1)
        self._journal.answer(name, value=str(total))

    # -- calls that run a process --------------------------------------------------------------

    def _read_in_worker(self) -> Runs:
        name = self._call("read")
        return tasks.read, {"name": name}

    def _put_in_worker(self) -> Runs:
        return tasks.put, self._for_worker()

    def _swap_in_worker(self) -> Runs:
        return tasks.swap, self._for_worker()

    def _for_worker(self) -> dict[str, Any]:
        name, keys, value = self._journal.name(), self._keys(), self._value()
        return {"name": name, "client": self._number, "keys": keys, "value": value}

    def _add_by_process(self, add: Any) -> Runs:
        return add, {"name": self._call("add")}

    def _note_end(self, name: str, process: Any, error: BaseException | None) -> None:
        if isinstance(error, WorkerCrashed):
            self._journal.never(name)  # nothing of a task is committed that did not end
        elif isinstance(error, ContextError):
            assert process is tasks.swap, (
                error
            )  # nothing else depends on a version and is tried once
            self._lose(name, error)
        elif process is not tasks.read:  # that was answered in the worker
            self._journal.answer(name, **({"won": True} if process is tasks.swap else {}))

    # -- words ---------------------------------------------------------------------------------

    def _call(self, kind: str, **operation: Any) -> str:
        name = self._journal.name()
        self._journal.call(name, self._number, kind, **operation)
        return name

    def _lose(self, name: str, lost: ContextError) -> None:
        self._journal.answer(name, version=lost.found)
        self._seen = lost.found

    def _keys(self) -> list[str]:
        return self._random.sample(journal.KEYS[:-1], self._random.randint(1, 2))

    def _value(self) -> str:
        return f"{self._number}.{self._random.getrandbits(32):08x}"


def run_all(engine: TheusEngine, seed: str, threads: int, coroutines: int, calls: int) -> None:
    """Let clients of both sorts make so many calls each."""
    clients = [Client(engine, number, seed) for number in range(threads + coroutines)]
    running = [
        threading.Thread(target=client.in_thread, args=(calls,)) for client in clients[:threads]
    ]
    for thread in running:
        thread.start()

    async def on_loop() -> None:
        await asyncio.gather(*(client.in_coroutine(calls) for client in clients[threads:]))

    asyncio.run(on_loop())
    for thread in running:
        thread.join()
