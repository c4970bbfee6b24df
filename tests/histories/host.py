"""A host program: clients use the state of its engine at once, while its workers are killed.

``host.py SEED CALLS``. What it does is in the journal that the environment names. A failure of a
client ends it with status 1.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from pathlib import Path
from random import Random

import journal
from attached import Served, start
from clients import Client, run_all
from theus import TheusEngine

THREADS, COROUTINES, ATTACHED = 3, 3, 2
# Seconds between two kills.
PAUSES = (0.002, 0.03)
ZYGOTES = 0.05  # of the kills
CLIENTS = 0.2  # of the kills: of attached processes


class Attached:
    """The processes beside this one that use its engine. One that is killed is replaced."""

    def __init__(self, engine: TheusEngine, seed: str, calls: int) -> None:
        address = str(Path(os.environ[journal.VARIABLE]).with_name("socket"))
        self._served = Served(engine, address)
        self._numbers = itertools.count(THREADS + COROUTINES)
        self._start = lambda: start(address, next(self._numbers), seed, calls)
        self._running = [self._start() for _ in range(ATTACHED)]

    def kill_one(self, random: Random) -> None:
        victim = random.choice(self._running)
        if victim.poll() is None:
            victim.kill()
            victim.wait()
            journal.own().note(killed=victim.pid, attached=True)
            self._running.remove(victim)
            self._running.append(self._start())

    def finish(self) -> list[int]:
        """Wait for all; gives the statuses that are not 0."""
        statuses = [process.wait() for process in self._running]
        self._served.close()
        return [status for status in statuses if status]

    def number(self) -> int:
        """One that no client has."""
        return next(self._numbers)


def kill_some(
    engine: TheusEngine, attached: Attached, random: Random, done: threading.Event
) -> None:
    """Kill workers one after the other, sometimes their zygote or an attached process."""
    while not done.wait(random.uniform(*PAUSES)):
        if random.random() < CLIENTS:
            attached.kill_one(random)
            continue
        pids = [worker["pid"] for worker in engine.stats()["workers"] if worker["pid"]]
        if not pids:
            continue
        victim = random.choice(pids)
        with contextlib.suppress(OSError, ValueError, IndexError):
            # A number may be another process's by now: ours are in the family of this one.
            parent = parent_of(victim)
            if parent_of(parent) != os.getpid():
                continue
            if random.random() < ZYGOTES:
                victim = parent
            os.kill(victim, signal.SIGKILL)
            journal.own().note(killed=victim)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def main() -> int:
    seed, calls = sys.argv[1], int(sys.argv[2])
    failures: list[object] = []
    threading.excepthook = lambda failure: failures.append(failure.exc_value)
    with TheusEngine({"domain": {"a": "", "b": "", "c": "", "n": 0}}, workers=2) as engine:
        state = engine.state
        start = journal.values_of(state.domain)
        journal.own().note(start=start, version=state.version)
        done = threading.Event()
        attached = Attached(engine, seed, calls)
        killer = threading.Thread(
            target=kill_some, args=(engine, attached, Random(f"{seed} killer"), done)
        )
        killer.start()
        try:
            run_all(engine, seed, THREADS, COROUTINES, calls)
        finally:
            done.set()
            killer.join()
        failures += [f"an attached process ended with {s}" for s in attached.finish()]
        Client(engine, attached.number(), seed)._read()
    for failure in failures:
        print(f"a client failed: {failure!r}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
