"""A host program: opens an engine, works with it from many threads, closes it. Run by referee.py.

Its argument is a `Plan` as JSON. It says what it does on the page of stages.py and in the journal,
and leaves the stage that it is told to hold only when it is killed, or told on standard input.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import journal
import processes
from clients import ADDERS, Clients, numbers
from patterns import LARGE, SMALL, checksum, expected, pattern
from stages import Stage, StagePage
from theus import LargeArgumentWarning, TheusEngine
from work import fork_and_hold

HEAP = 1 << 30
VIEWS_KEPT = 6
# For what is given back in the background; a loaded machine may be slow.
PATIENCE = 60.0


@dataclass(frozen=True)
class Plan:
    """What a host is to do.

    Attributes:
        seed: what its choices follow from.
        workers: how many its engine has.
        hold: the stage that it stays in, or comes back to, until it is killed or told to end.
        dies: it will be killed; else it looks at its end what it has left.
        close_under_load: close the engine while tasks run.
        threads_preloaded: a preloaded module has a thread, so workers are fresh interpreters.
        directory: where its journal and its stage page are.
    """

    seed: str
    workers: int
    hold: Stage
    dies: bool
    close_under_load: bool
    threads_preloaded: bool
    directory: str

    def text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> Plan:
        plan = Plan(**json.loads(text))
        return Plan(**{**asdict(plan), "hold": Stage(plan.hold)})


class Host:
    """One host."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.page = StagePage(Path(plan.directory) / "stage")
        self.journal = journal.own()
        self.numbers = numbers()
        self.random = Random(plan.seed)
        self.told_to_end = threading.Event()
        self.forked: list[int] = []

    def live(self) -> None:
        """The whole life: an engine, or one after the other where opening or closing is held."""
        if self.plan.dies:
            while not self.told_to_end.is_set():
                self._use_an_engine()
            return
        with TheusEngine(workers=1) as engine:  # what loading the library leaves is there now
            engine.run(pow, 2, 3)
        del engine
        before = _held()
        self._use_an_engine()
        deadline = time.monotonic() + PATIENCE
        while (left := _held() - before) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)  # what was let go of is given back on another thread
        if left:
            self.journal.note("left", text=f"a host with its engine closed: {sorted(left)}")

    @contextlib.contextmanager
    def _engine(self) -> Iterator[TheusEngine]:
        self.page.stage = Stage.OPENING
        self.journal.note("open")
        preload = (
            ("numpy", "preloaded_with_a_thread") if self.plan.threads_preloaded else ("numpy",)
        )
        engine = TheusEngine(
            {"counter": 0, "generation": 0, "made": 0},
            workers=self.plan.workers,
            heap=HEAP,
            preload=preload,
        )
        assert engine.run(pow, 2, 3, retries=10) == 8
        try:
            yield engine
        finally:
            self.page.stage = Stage.CLOSING
            engine.close()
            self.page.stage = Stage.STARTING

    def _use_an_engine(self) -> None:
        clients = None
        with self._engine() as engine:
            publisher = Publisher(self, engine)
            publisher.publish()
            clients = Clients(engine, self.journal, self.numbers, f"{self.plan.seed}/clients")
            clients.start()
            self._hold(engine, publisher)
            if self.plan.close_under_load:
                self._look_at_counter(engine, ADDERS)
                clients.will_close()
            else:
                clients.join()
                self._look_at_counter(engine, 0)
        clients.join()
        for pid in self.forked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.forked.clear()

    def _look_at_counter(self, engine: TheusEngine, adders: int) -> None:
        """What the journal has before the look was added before it."""
        self.journal.note("look")
        value = engine.state.data["counter"]
        self.journal.note("counter", value=value, adders=adders)

    def _hold(self, engine: TheusEngine, publisher: Publisher) -> None:
        """Stay until told; in the stages that are held on the way, come back to them."""
        pause = 0.02 if self.plan.hold in (Stage.ALLOCATING, Stage.PUBLISHING) else 0.1
        ends = self.plan.hold in (Stage.OPENING, Stage.CLOSING)
        rounds = 0
        while not self.told_to_end.is_set() and not (ends and rounds == 2):
            self.page.stage = Stage.EXECUTING
            self.told_to_end.wait(pause)
            publisher.publish()
            self._look_at_counter(engine, ADDERS)
            if not self.forked:
                self.forked.append(fork_and_hold("host", publisher.newest()))
            rounds += 1


class Publisher:
    """Publishes one generation of arrays after the other, and looks at old ones again."""

    def __init__(self, host: Host, engine: TheusEngine) -> None:
        self._host = host
        self._engine = engine
        self._generation = 0
        self._kept: list[tuple[int, Any, Any]] = []

    def newest(self) -> list[Any]:
        """The arrays of the newest generation."""
        _, table, small = self._kept[-1]
        return [table, small]

    def publish(self) -> None:
        """The next generation: two arrays and its number, in one swap."""
        engine, page, random = self._engine, self._host.page, self._host.random
        self._generation += 1
        number = self._generation
        page.stage = Stage.ALLOCATING
        if number > 1 and random.random() < 0.5:
            table = engine.heavy.edit("table", blank=random.random() < 0.5)
        else:
            table = engine.heavy.alloc("table", LARGE, np.uint64)
        small = engine.heavy.alloc("small", SMALL, np.uint64)
        stale = np.asarray(table)[100:200]
        table[:] = pattern(number, LARGE)
        small[:] = pattern(number, SMALL)
        page.stage = Stage.PUBLISHING
        engine.compare_and_swap(
            engine.state.version,
            data={"generation": number},
            heavy={"table": table, "small": small},
        )
        stale[:] = 0  # taken before: it may be written to, and nobody is to see it
        page.stage = Stage.EXECUTING
        del table, small, stale
        heavy = engine.state.heavy
        self._kept.append((number, heavy["table"], heavy["small"]))
        self._look_again()

    def _look_again(self) -> None:
        generation, table, small = self._host.random.choice(self._kept)
        right = expected(generation, LARGE), expected(generation, SMALL)
        if (checksum(table), checksum(small)) != right:
            self._host.journal.note("wrong", text=f"generation {generation} reads differently")
        if len(self._kept) > VIEWS_KEPT:
            self._kept.pop(self._host.random.randrange(VIEWS_KEPT))


def _held() -> set[str]:
    """What this process holds: descriptors, shared maps, children and threads of theus."""
    maps = [region for region in processes.regions() if region.is_shared_memory]
    threads = [thread.name for thread in threading.enumerate()]
    return {
        *processes.descriptors(),
        *(f"map of {region.end - region.start} bytes at {region.start:#x}" for region in maps),
        *(f"process {pid}" for pid in processes.descendants(os.getpid())),
        *(f"thread {name}" for name in threads if name.startswith("theus")),
    }


def main() -> None:
    plan = Plan.of(sys.argv[1])
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    # What is meant to be so here: large arguments, and a module with a thread among the preloaded.
    warnings.simplefilter("ignore", LargeArgumentWarning)
    logging.getLogger("theus").addFilter(lambda record: "started threads" not in record.msg)
    # Forking with threads is what the children that user code forks are about.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    host = Host(plan)

    def wait_for_word() -> None:
        os.read(0, 1)  # no lock of sys.stdin is held when the interpreter ends
        host.told_to_end.set()

    threading.Thread(target=wait_for_word, daemon=True).start()
    host.live()


if __name__ == "__main__":
    main()
