"""Killing one process at a time, and knowing exactly what it was doing when it died."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import family
import journal
from family import WorkerPhase, ZygotePhase
from stages import Stage, StagePage

# Tries to find a process in a phase before another cell of the table gets its turn.
TRIES = 400


class HolderPhase(enum.Enum):
    """What had become of the parent of a child that user code forked."""

    PARENT_ALIVE = "parent alive"
    PARENT_GONE = "parent gone"


Cell = tuple[str, Any]

WORKER, ZYGOTE, HOST = "worker", "zygote", "host"
CHILD_OF_WORKER, CHILD_OF_HOST = "child of a worker", "child of the host"
HOST_STAGES = (
    Stage.OPENING, Stage.ALLOCATING, Stage.PUBLISHING, Stage.EXECUTING, Stage.CLOSING,
)  # fmt: skip
CELLS: tuple[Cell, ...] = (
    *((WORKER, phase) for phase in WorkerPhase),
    *((ZYGOTE, phase) for phase in ZygotePhase),
    *((HOST, stage) for stage in HOST_STAGES),
    *((CHILD_OF_WORKER, phase) for phase in HolderPhase),
    *((CHILD_OF_HOST, phase) for phase in HolderPhase),
)


@dataclass(frozen=True)
class Kill:
    """One process that was killed.

    Attributes:
        cell: what it was and what it did.
        pid: its process id.
        workers: pids of the workers that may have lost a task by it.
    """

    cell: Cell
    pid: int
    workers: frozenset[int] = frozenset()


class Killer:
    """Kills processes of one host's family.

    Args:
        host: the host's process id.
        facts: its journal.
        random: what its choices follow from.

    Attributes:
        kills: what was killed, in this order.
    """

    def __init__(self, host: int, facts: Path, random: Random) -> None:
        self.kills: list[Kill] = []
        self._host = host
        self._facts = facts
        self._random = random
        self._proven: set[int] = set()  # zygotes of whose workers one has begun a task

    def kill(self, cell: Cell) -> None:
        """Kill one process of this kind, in this phase if it can be found in it."""
        kind, phase = cell
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            if kind == WORKER and phase is WorkerPhase.STARTING:
                self._starting_worker()
            elif kind == WORKER:
                self._worker(phase)
            elif kind == ZYGOTE and phase is ZygotePhase.STARTING:
                self._starting_zygote()
            elif kind == ZYGOTE:
                self._zygote(phase)

    # ---- workers

    def _workers(self) -> list[int]:
        return [pid for zygote in family.zygotes(self._host) for pid in family.children(zygote)]

    def _worker(self, wanted: WorkerPhase) -> None:
        for _ in range(TRIES):
            workers = self._workers()
            if not workers:
                return
            worker = self._random.choice(workers)
            page = family.status_page(self._host, worker)
            if page is None:
                continue
            try:
                if self._in_phase(worker, page, wanted):
                    return
            finally:
                page.close()

    def _in_phase(self, worker: int, page: family.StatusPage, wanted: WorkerPhase) -> bool:
        """Wait a moment for the phase and kill: stopped first, or at once and looked at then."""
        end = time.monotonic() + 0.02
        while page.word()[0] is not wanted:
            if time.monotonic() > end:
                return False
        if self._random.random() < 0.3:
            os.kill(worker, signal.SIGKILL)
            family.has_ended(worker)
            self._killed_worker(worker, page.word()[0])
            return True
        if not _stop(worker):
            return False
        if page.word()[0] is not wanted:
            os.kill(worker, signal.SIGCONT)
            return False
        os.kill(worker, signal.SIGKILL)
        self._killed_worker(worker, wanted)
        return True

    def _killed_worker(self, worker: int, phase: WorkerPhase) -> None:
        without_task = phase in (WorkerPhase.STARTING, WorkerPhase.IDLE)
        lost = frozenset[int]() if without_task else frozenset((worker,))
        self.kills.append(Kill((WORKER, phase), worker, lost))

    def _starting_worker(self) -> None:
        """Kill a worker, and the one that takes its place before it has its status page."""
        zygote, known = self._disturb_zygote()
        end = time.monotonic() + 0.5
        while zygote and time.monotonic() < end:
            for worker in set(family.children(zygote)) - known:
                if not _stop(worker):
                    return
                if family.status_page(self._host, worker) is None:
                    os.kill(worker, signal.SIGKILL)
                    self._killed_worker(worker, WorkerPhase.STARTING)
                else:
                    os.kill(worker, signal.SIGCONT)
                return

    def _disturb_zygote(self) -> tuple[int, set[int]]:
        """Kill a worker, so that its zygote forks; gives it, and the workers it had before."""
        for zygote in family.zygotes(self._host):
            known = set(family.children(zygote))
            for worker in known:
                page = family.status_page(self._host, worker)
                if page is not None:
                    try:
                        if self._in_phase(worker, page, page.word()[0]):
                            return zygote, known
                    finally:
                        page.close()
        return 0, set()

    # ---- zygotes

    def _proven_zygote(self) -> int:
        """The zygote, once a worker of it has begun a task; else 0.

        An engine gives up when three zygotes in a row die before they have a worker: a broken
        installation looks like that. So no other is killed, but for one in between that starts.
        """
        begun = {fact["pid"] for fact in journal.read(self._facts) if fact["what"] == "begin"}
        for zygote in family.zygotes(self._host):
            if begun.intersection(family.children(zygote)):
                self._proven.add(zygote)
            if zygote in self._proven:
                return zygote
        return 0

    def _zygote(self, wanted: ZygotePhase) -> None:
        zygote = self._proven_zygote()
        for _ in range(TRIES if zygote else 0):
            if wanted is ZygotePhase.FORKING and self._random.random() < 0.1:
                self._disturb_zygote()
            if self._zygote_in_phase(zygote, wanted):
                return

    def _starting_zygote(self) -> None:
        """Kill a zygote, and the one that takes its place before it has a worker."""
        before = self._proven_zygote()
        if not before or not self._zygote_in_phase(before, ZygotePhase.SERVING):
            return
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            for zygote in set(family.zygotes(self._host)) - {before}:
                time.sleep(self._random.uniform(0, 0.15))
                self._zygote_in_phase(zygote, ZygotePhase.STARTING)
                return

    def _zygote_in_phase(self, zygote: int, wanted: ZygotePhase) -> bool:
        if not _stop(zygote):
            return False
        workers = family.children(zygote)
        if family.zygote_phase(zygote, had_workers=zygote in self._proven) is not wanted:
            os.kill(zygote, signal.SIGCONT)
            return False
        os.kill(zygote, signal.SIGKILL)
        self.kills.append(Kill((ZYGOTE, wanted), zygote, frozenset(workers)))
        return True

    # ---- the host, and what user code forked

    def pause_host(self) -> None:
        """Have the host stand still for a moment, so that it learns late of what workers do."""
        if _stop(self._host):
            time.sleep(self._random.uniform(0, 0.02))
            os.kill(self._host, signal.SIGCONT)

    def kill_host(self, page: StagePage, wanted: Stage, patience: float) -> bool:
        """Kill the host when it is in this stage; False: it did not come to that."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if page.stage is not wanted:
                time.sleep(0.0002)
                continue
            time.sleep(self._random.uniform(0, 0.02))
            if not _stop(self._host):
                return False
            if page.stage is wanted:
                os.kill(self._host, signal.SIGKILL)
                workers = frozenset(self._workers())
                self.kills.append(Kill((HOST, wanted), self._host, workers))
                return True
            os.kill(self._host, signal.SIGCONT)
        return False

    def kill_holder(self, pid: int, parent: str, phase: HolderPhase) -> None:
        """Kill a child that user code forked."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            kind = CHILD_OF_WORKER if parent == "worker" else CHILD_OF_HOST
            self.kills.append(Kill((kind, phase), pid))


def _stop(pid: int) -> bool:
    """Have a process stand still; False: it is dead."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    return family.has_stopped(pid)
