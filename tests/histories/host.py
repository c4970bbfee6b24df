"""A host program: clients use the state of its engine at once, while its workers are killed.

``host.py SEED CALLS``. What it does is in the journal that the environment names. A failure of a
client ends it with status 1.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from random import Random

import journal
from clients import Client, run_all
from theus import TheusEngine

THREADS, COROUTINES = 3, 3
# Seconds between two kills.
PAUSES = (0.005, 0.08)
ZYGOTES = 0.05  # of the kills


def kill_workers(engine: TheusEngine, random: Random, done: threading.Event) -> None:
    """Kill one after the other, and sometimes their parent, the zygote."""
    while not done.wait(random.uniform(*PAUSES)):
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
        killer = threading.Thread(
            target=kill_workers, args=(engine, Random(f"{seed} killer"), done)
        )
        killer.start()
        try:
            run_all(engine, seed, THREADS, COROUTINES, calls)
        finally:
            done.set()
            killer.join()
        Client(engine, THREADS + COROUTINES, seed)._read()
    for failure in failures:
        print(f"a client failed: {failure!r}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
