"""The clients of one engine: threads that submit tasks, and write down how each ended."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import work
from journal import Journal
from kinds import KINDS, MIX, Kind
from theus import ContextError, EngineClosed, TaskTimeout, TheusEngine, WorkerCrashed

CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
# A client that waits so long for one task waits for ever.
PATIENCE = 60.0
# Clients that add to the counter, beside the tasks that do.
ADDERS = 2


class Clients:
    """Load on an engine, from several threads and an asyncio loop.

    Args:
        engine: what they use.
        journal: where they write.
        numbers: gives each task of a host its number.
        seed: what their choices follow from.
    """

    def __init__(
        self, engine: TheusEngine, journal: Journal, numbers: Iterator[int], seed: str
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._numbers = numbers
        self._seed = seed
        self._stop = threading.Event()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        clients: list[Callable[[Random], None]] = [
            self._call_and_wait, self._submit_several, self._loop, self._map,
            *[self._add] * ADDERS, self._fork,
        ]  # fmt: skip
        for number, client in enumerate(clients):
            random = Random(f"{self._seed}/{number}")
            thread = threading.Thread(
                target=self._until_stopped, args=(client, random), name=client.__name__
            )
            thread.start()
            self._threads.append(thread)

    def will_close(self) -> None:
        """From now on tasks may end because the engine is closed."""
        self._journal.note("close")
        self._closing.set()
        self._stop.set()

    def stop(self) -> None:
        """Let every client finish what it has begun."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the clients' ends."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                raise TimeoutError(f"client {thread.name} still waits after {PATIENCE} s")

    def _until_stopped(self, client: Callable[[Random], None], random: Random) -> None:
        try:
            while not self._stop.is_set():
                client(random)
        except Exception as error:
            if not (isinstance(error, EngineClosed) and self._closing.is_set()):
                self._journal.note("wrong", text=f"client {client.__name__} got {error!r}")

    # ---- one task

    def _order(self, random: Random) -> tuple[int, Kind, dict[str, Any], dict[str, Any]]:
        """A task's number, its kind, its arguments, and the options to submit it with."""
        name = random.choices(list(MIX), list(MIX.values()))[0]
        return self._order_of(name, random)

    def _order_of(
        self, name: str, random: Random
    ) -> tuple[int, Kind, dict[str, Any], dict[str, Any]]:
        kind, task = KINDS[name], next(self._numbers)
        options: dict[str, Any] = {}
        if kind.timeout is not None:
            options["timeout"] = random.uniform(*kind.timeout)
        if random.random() < 0.3:
            options["retries"] = random.randint(1, 2)
        arguments = {"task": task, **kind.arguments(task, random)}
        self._journal.note("order", task=task, kind=name, retries=options.get("retries", 0))
        return task, kind, arguments, options

    def _ended(self, task: int, kind: Kind, take: Callable[[], Any]) -> None:
        """Write down how a task ended."""
        try:
            facts = kind.facts(take(), self._engine)
        except WorkerCrashed as crash:
            self._journal.note("end", task=task, how="crashed", pid=crash.pid)
        except TaskTimeout:
            self._journal.note("end", task=task, how="timeout")
        except CANCELLED:
            self._journal.note("end", task=task, how="cancelled")
        except Exception as error:
            if isinstance(error, EngineClosed) and self._closing.is_set():
                self._journal.note("end", task=task, how="cancelled")
                return
            name = type(error).__name__
            self._journal.note("end", task=task, how="exception", type=name, text=str(error))
        else:
            self._journal.note("end", task=task, how="result", facts=facts)

    # ---- the ways to run tasks

    def _call_and_wait(self, random: Random) -> None:
        task, kind, arguments, options = self._order(random)
        if kind.cancelled is None:
            run = partial(self._engine.run, kind.function, **options, **arguments)
            self._ended(task, kind, run)
            return
        future = self._submit(task, kind, arguments, options)
        if future is not None:
            self._stop.wait(random.uniform(*kind.cancelled))
            self._journal.note("cancel", task=task)
            future.cancel()
            self._ended(task, kind, partial(future.result, PATIENCE))

    def _submit_several(self, random: Random) -> None:
        """Several at once, so that workers have tasks waiting and are sent one ahead."""
        futures = []
        mix = random.choice([["short"] * 4 + ["short, cancelled"], ["text"], ["rows"], list(MIX)])
        for _ in range(random.randint(2, 16)):
            task, kind, arguments, options = self._order_of(random.choice(mix), random)
            future = self._submit(task, kind, arguments, options)
            if future is not None:
                futures.append((task, kind, future))
        for task, kind, future in futures:
            if kind.cancelled is not None:
                self._stop.wait(random.uniform(*kind.cancelled))
                self._journal.note("cancel", task=task)
                future.cancel()
        for task, kind, future in futures:
            self._ended(task, kind, partial(future.result, PATIENCE))

    def _submit(
        self, task: int, kind: Kind, arguments: dict[str, Any], options: dict[str, Any]
    ) -> concurrent.futures.Future[Any] | None:
        try:
            return self._engine.submit(kind.function, **options, **arguments)
        except Exception as error:
            self._ended(task, kind, _raising(error))
            return None

    def _loop(self, random: Random) -> None:
        """Coroutines that await tasks, on a loop of their own."""
        asyncio.run(self._await_tasks(random))

    async def _await_tasks(self, random: Random) -> None:
        clients = [self._await_one_after_the_other(Random(random.random())) for _ in range(3)]
        await asyncio.gather(*clients)

    async def _await_one_after_the_other(self, random: Random) -> None:
        for _ in range(random.randint(5, 50)):
            if self._stop.is_set():
                return
            task, kind, arguments, options = self._order(random)
            execution = asyncio.ensure_future(
                self._engine.execute(kind.function, **options, **arguments)
            )
            patience = PATIENCE if kind.cancelled is None else random.uniform(*kind.cancelled)
            await asyncio.wait({execution}, timeout=patience)
            if not execution.done():
                if kind.cancelled is not None:  # else it hangs, and nobody is to have asked for it
                    self._journal.note("cancel", task=task)
                execution.cancel()
                await asyncio.wait({execution})
            self._ended(task, kind, execution.result)

    def _map(self, random: Random) -> None:
        """A map. Items behind one that fails are cancelled, whether they have begun or not."""
        kind = KINDS["item"]
        tasks = [next(self._numbers) for _ in range(random.randint(1, 60))]
        for task in tasks:
            self._journal.note("order", task=task, kind="item", retries=0)
        chunksize: Any = random.choice(["auto", 1, 5])
        results: Iterator[Any] | None = None
        failed = False
        for task in tasks:
            if failed:
                self._journal.note("cancel", task=task)
                self._journal.note("end", task=task, how="cancelled")
                continue
            try:
                if results is None:
                    results = iter(self._engine.map(work.item, tasks, chunksize=chunksize))
                value = next(results)
            except BaseException as error:  # StopIteration too: an item too few
                failed = True
                self._ended(task, kind, _raising(error))
            else:
                self._ended(task, kind, partial(int, value))

    # ---- what is no task

    def _add(self, random: Random) -> None:
        """Add one to the counter, against others that do."""
        engine = self._engine
        state = engine.state
        try:
            engine.compare_and_swap(state.version, data={"counter": state.data["counter"] + 1})
        except ContextError:
            return
        self._journal.note("added")
        self._stop.wait(random.uniform(0, 0.01))

    def _fork(self, random: Random) -> None:
        """Have a worker fork a child now and then."""
        if not self._stop.wait(random.uniform(0.1, 0.5)):
            task, kind, arguments, options = self._order_of("forking", random)
            run = partial(self._engine.run, kind.function, **options, **arguments)
            self._ended(task, kind, run)


def _raising(error: BaseException) -> Callable[[], Any]:
    """What raises an error that came earlier than its task's end is looked at."""

    def take() -> Any:
        raise error

    return take


def numbers() -> Iterator[int]:
    """The numbers of a host's tasks."""
    return itertools.count(1)
