"""Starts hosts, kills processes of theirs while they work, and judges what they leave.

A *bout* is the life of one host. Its plan follows from the seed and the number of the bout; which
process is where when it is killed does so only as far as the scheduler lets it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import journal
import processes
from accounting import account_for
from hangs import Hang, describe
from host import Plan
from killing import CELLS, HOST, WORKER, ZYGOTE, HolderPhase, Killer
from stages import Stage, StagePage
from tally import Tally

HERE = Path(__file__).resolve().parent
# A loaded machine may be slow, and what takes this long hangs.
PATIENCE = 90.0


# The stages in which hosts are killed, in turn; None: one that comes to its own end.
FATES = (
    Stage.EXECUTING, Stage.OPENING, None, Stage.PUBLISHING, Stage.CLOSING, None, Stage.ALLOCATING,
)  # fmt: skip


class Bout:
    """One host, from its start to the judgement.

    Attributes:
        tally: where its kills and its account go.
    """

    def __init__(self, seed: int, number: int, tally: Tally, scratch: Path) -> None:
        self._random = Random(f"{seed}/{number}")
        self.tally = tally
        self._directory = scratch / f"bout-{number}"
        fate = FATES[number % len(FATES)]
        self._dies = fate is not None
        self._plan = Plan(
            seed=f"{seed}/{number}",
            workers=self._random.randint(1, 4),
            hold=Stage.EXECUTING if fate is None else fate,
            dies=self._dies,
            close_under_load=self._random.random() < 0.5,
            threads_preloaded=self._random.random() < 0.1,
            directory=str(self._directory),
        )

    def run(self, kills: int) -> None:
        """Run it.

        Args:
            kills: how many processes of the family to kill before the host ends.

        Raises:
            Hang: something did not come to its end.
        """
        self.prepare()
        with self._started() as process:
            page = StagePage(self._directory / "stage")
            killer = Killer(process.pid, self._directory / "journal", self._random)
            self._kill_some(process, page, killer, kills)
            if self._dies:
                self._await(
                    lambda: (
                        killer.kill_host(page, self._plan.hold, 1.0) or process.poll() is not None
                    ),
                    f"the host to be {self._plan.hold.name.lower()}",
                    process.pid,
                )
            else:
                assert process.stdin is not None
                process.stdin.close()
            self._await(lambda: process.poll() is not None, "the host to end", process.pid)
            self.judge(process, killer)

    def prepare(self) -> None:
        """Make what the host is to find."""
        for name in ("cwd", "tmp", "home"):
            (self._directory / name).mkdir(parents=True)
        StagePage(self._directory / "stage")

    @contextlib.contextmanager
    def _started(self) -> Iterator[subprocess.Popen[bytes]]:
        directory = self._directory
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("THEUS_", "PYTEST_"))},
            "THEUS_USE_PROCESSES": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "python")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(directory / "tmp"),
            "HOME": str(directory / "home"),
            journal.VARIABLE: str(directory / "journal"),
        }
        with (directory / "printed").open("wb") as printed:
            process = subprocess.Popen(
                [sys.executable, str(HERE / "host.py"), self._plan.text()],
                cwd=directory / "cwd",
                env=environment,
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
            )
        with process:
            try:
                yield process
            finally:
                for pid in processes.in_session(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def _kill_some(
        self, process: subprocess.Popen[bytes], page: StagePage, killer: Killer, count: int
    ) -> None:
        if self._dies and self._plan.hold is Stage.OPENING and self._random.random() < 0.5:
            return  # the very first engine
        self._await(
            lambda: page.stage >= Stage.EXECUTING or process.poll() is not None,
            "the host to work",
            process.pid,
        )
        cells = [cell for cell in CELLS if cell[0] in (WORKER, ZYGOTE)]
        for _ in range(count):
            if process.poll() is not None:
                return
            # Mostly workers: a new zygote takes a while, and meanwhile nothing can be killed.
            kind = ZYGOTE if self._random.random() < 0.2 else WORKER
            of_kind = [cell for cell in cells if cell[0] == kind]
            if self._random.random() < 0.5:
                cell = self.tally.emptiest(of_kind, self._random)
            else:
                cell = self._random.choice(of_kind)
            killer.kill(cell)
            time.sleep(self._random.uniform(0, 0.05))  # let the others work
            if self._random.random() < 0.5:
                killer.pause_host()
            if self._random.random() < 0.2:
                self._kill_a_holder(killer)

    def _kill_a_holder(self, killer: Killer) -> None:
        """The newest first: its parent may be there yet."""
        for holder in self._holders()[-1:]:
            phase = HolderPhase.PARENT_ALIVE if holder.has_parent else HolderPhase.PARENT_GONE
            killer.kill_holder(holder.pid, holder.parent, phase)

    def _holders(self) -> list[Holder]:
        """The children that user code forked and that live."""
        facts = journal.read(self._directory / "journal")
        found = [
            Holder(fact["pid"], fact["ppid"], fact["parent"])
            for fact in facts
            if fact["what"] == "holder"
        ]
        return [holder for holder in found if processes.alive(holder.pid)]

    # ---- the judgement

    def _await(self, look: Callable[[], bool], what: str, host: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > deadline:
                raise Hang(f"waited {PATIENCE} s for {what}\n{describe(host, self._directory)}")
            time.sleep(0.001)

    def judge(self, process: subprocess.Popen[bytes], killer: Killer) -> None:
        """Settle the accounts of a host that has ended, once the processes of its session are gone.

        Raises:
            Hang: one stays that is not a child which user code forked.
        """
        started = time.monotonic()
        died = any(kill.cell[0] == HOST for kill in killer.kills)
        self._await(
            lambda: {*processes.in_session(process.pid)} <= {h.pid for h in self._holders()},
            "the processes of the host's session to be gone",
            process.pid,
        )
        slowest = time.monotonic() - started
        for holder in self._holders():  # they outlive their parents, as their user wanted
            killer.kill_holder(holder.pid, holder.parent, HolderPhase.PARENT_GONE)
        self._await(
            lambda: not processes.in_session(process.pid),
            "the children that user code forked to be gone",
            process.pid,
        )
        account = account_for(
            journal.read(self._directory / "journal"), killer.kills, host_died=died
        )
        if not died and process.returncode:
            account.wrong.append(f"the host ended with status {process.returncode}")
        printed = (self._directory / "printed").read_text(errors="replace")
        if printed:
            account.wrong.append(f"the host or a process of its printed: {printed}")
        for name in ("cwd", "tmp", "home"):
            files = os.listdir(self._directory / name)
            account.left += [f"file {file!r} in the host's {name}" for file in files]
        self.tally.add(killer.kills, account, slowest)
        if account.good:
            shutil.rmtree(self._directory)


class Holder(NamedTuple):
    """A child that user code forked, and that keeps shared arrays mapped."""

    pid: int
    ppid: int  # of the process that forked it
    parent: str  # what that is

    @property
    def has_parent(self) -> bool:
        """Whether that process still lives; else another one has adopted this one."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return int(stat.rpartition(")")[2].split()[1]) == self.ppid
