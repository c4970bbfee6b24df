"""Whoever dies, nothing is left behind, and every task ends exactly once.

Programs that are to die are programs of their own: see `programs.started`, which fails a test when
any process of theirs is left. That no shared page is left is checked after every test.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs
import jobs_that_fail
from gate import Gate
from polling import until
from processes import alive, descendants, in_session
from programs import Program, started
from theus import TheusEngine, WorkerCrashed

SHM = Path("/dev/shm")

# 256 MB, so that pages that stay are seen in the machine's account.
HOST = """
import os, signal, sys, threading, time
import numpy as np
from theus import TheusEngine

def spin():
    while True:
        pass

def sleep():
    while True:
        signal.pause()

def fork():
    pid = os.fork()
    while pid == 0:
        signal.pause()
    return pid

engine = TheusEngine(workers=2)
array = engine.heavy.alloc("x", 1 << 25)
array[:] = 1.0
array.publish()

def say(*words):
    print(*words, flush=True)

def total(ctx, *_):
    return float(ctx.heavy["x"].sum())
"""

MOMENTS = {
    "idle": "say(engine.run(total)); signal.pause()",
    "at the start": "say('started'); signal.pause()",
    "tasks wait": "[engine.submit(sleep) for _ in range(20)]; say('sent'); signal.pause()",
    "tasks compute": "[engine.submit(spin) for _ in range(4)]; say('sent'); signal.pause()",
    "a call waits": "say('now'); engine.run(sleep)",
    "a map runs": "say('now'); list(engine.map(total, range(10**9)))",
    "publishing": """
say('now')
for n in range(10**9):
    engine.heavy.put('y', np.full(1 << 20, n))
""",
    "results come": """
say('now')
while True:
    engine.run(np.ones, 1 << 20)
""",
    "closing": "[engine.submit(spin) for _ in range(4)]; say('now'); engine.close()",
}


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    directory = tmp_path / "cwd"
    directory.mkdir()
    return directory


def host(moment: str, cwd: Path) -> Any:
    """A host that runs, see `HOST`."""
    return started(["-c", HOST + MOMENTS[moment]], cwd=cwd)


def named() -> set[str]:
    """What has a name in /dev/shm and could be ours: SharedMemory calls its segments psm_…
    Others come and go there; another program's semaphores, say."""
    names = os.listdir(SHM) if SHM.exists() else []
    return {name for name in names if name.startswith("psm_") or "theus" in name}


def assert_nothing_left(program: Program, cwd: Path, files: set[str]) -> None:
    program.gone()
    assert named() <= files
    assert list(cwd.iterdir()) == []


# ---- the host dies -------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_host_is_killed(cwd: Path, moment: str) -> None:
    files = named()
    with host(moment, cwd) as program:
        assert program.line()
        program.process.kill()
        program.process.wait(60)
        assert_nothing_left(program, cwd, files)
        assert program.process.stderr is not None
        assert program.process.stderr.read() == ""


def test_the_host_is_killed_while_its_workers_are_stopped(cwd: Path) -> None:
    with host("idle", cwd) as program:
        assert program.line() == f"{2.0**25}"
        workers = descendants(program.pid)
        assert len(workers) == 3
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        program.process.kill()
        program.process.wait(60)
        program.gone()


def assert_only_this_outlives_its_host(program: Program, child: int) -> None:
    try:
        program.process.kill()
        program.process.wait(60)
        until(lambda: in_session(program.pid) == [child], "only what was forked to be left")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_user_code_forked_does_not_keep_workers_alive(cwd: Path) -> None:
    """It holds copies of every socket, so no end of file tells the workers that the host died."""
    with started(["-c", HOST + "say(engine.run(fork)); signal.pause()"], cwd=cwd) as program:
        assert_only_this_outlives_its_host(program, int(program.line()))


def test_a_child_that_the_host_forked_does_not_keep_workers_alive(cwd: Path) -> None:
    """It holds the host's ends of all sockets: the workers read no end of file."""
    text = HOST + "engine.run(total); say(fork()); signal.pause()"
    with started(["-c", text], cwd=cwd) as program:
        assert_only_this_outlives_its_host(program, int(program.line()))


def test_the_host_execs_another_program(cwd: Path) -> None:
    """It does not die, but what it knew is gone."""
    after = "import sys; print(sys.stdin.readline() or 'over')"
    text = HOST + f"engine.run(total); os.execv(sys.executable, [sys.executable, '-c', {after!r}])"
    with started(["-c", text], cwd=cwd) as program:
        assert program.end() == (0, "over\n", "")


# ---- the zygote or a worker dies -----------------------------------------------------------------


def family(engine: TheusEngine) -> tuple[int, set[int]]:
    """The pids of an engine's zygote and of its workers; 0 stands for one that starts."""
    workers = {worker["pid"] for worker in engine.stats()["workers"]}
    zygotes = [pid for pid in descendants(os.getpid()) if workers & set(descendants(pid))]
    assert len(zygotes) == 1
    return zygotes[0], workers


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_zygote_dies(gate: Gate, number: signal.Signals) -> None:
    with TheusEngine(workers=2) as engine:
        engine.heavy.put("x", np.ones(1000))
        tasks = [engine.submit(jobs_that_fail.sleep_for_ever, gate.reports) for _ in range(2)]
        gate.arrived(2)
        queued = engine.submit(pow, 2, 3)
        zygote, workers = family(engine)
        os.kill(zygote, number)
        for task in tasks:
            with pytest.raises(WorkerCrashed, match="zygote"):
                task.result(60)
        assert queued.result(60) == 8, "a task that had not begun is not lost"
        until(lambda: not any(map(alive, workers)), "its workers to be gone")
        assert engine.run(jobs.peek, "x") == [1.0] * 1000
        assert family(engine)[0] != zygote


def test_a_worker_dies_while_it_is_idle() -> None:
    with TheusEngine(workers=2) as engine:
        assert engine.run(pow, 2, 3) == 8
        # Killing 0 would kill this whole process group, silently.
        until(lambda: 0 not in family(engine)[1], "the second worker to have a process")
        for pid in family(engine)[1]:
            os.kill(pid, signal.SIGKILL)
        assert [engine.run(pow, 2, n) for n in range(8)] == [2**n for n in range(8)]


@pytest.mark.parametrize("seed", range(3))
def test_no_task_is_lost_or_run_twice(tmp_path: Path, seed: int) -> None:
    """Tasks that kill their workers, and workers that are killed from outside meanwhile."""
    choose = random.Random(seed)
    log = tmp_path / "began"
    count = 120
    fatal = set(choose.sample(range(count), 6))
    with TheusEngine(workers=2) as engine:
        engine.run(pow, 1, 1)
        tasks = {
            number: engine.submit(
                jobs_that_fail.note_and_maybe_die, number, str(log), number in fatal
            )
            for number in range(count)
        }
        for _ in range(6):
            wait([choose.choice(list(tasks.values()))], 60)
            # One that dies before it is ready tells of a broken installation, after three in a row.
            ready = [w["pid"] for w in engine.stats()["workers"] if w["state"] in ("idle", "busy")]
            if ready:
                kill_if_there(choose.choice(ready))
        _done, pending = wait(tasks.values(), 120)
        assert not pending
        began = [int(line) for line in log.read_text().split()]
        crashed = {n for n, task in tasks.items() if isinstance(outcome(task), WorkerCrashed)}
        others = {n: outcome(task) for n, task in tasks.items() if n not in crashed}
        assert others == {n: n for n in others}
        assert fatal <= crashed
        assert len(crashed) <= len(fatal) + 6
        assert len(began) == len(set(began)), "a task ran twice"
        assert set(began) >= set(tasks) - crashed
        stats = until(lambda: settled(engine), "no task to be left")
        assert stats["done"] + stats["failed"] >= count


def kill_if_there(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def outcome(task: Future[Any]) -> Any:
    """The result of a task, or its exception."""
    return task.exception(0) or task.result(0)


def settled(engine: TheusEngine) -> Any:
    tasks = engine.stats()["tasks"]
    return tasks if tasks["queued"] == tasks["running"] == 0 else None


def test_every_kind_of_end_is_counted_once(gate: Gate) -> None:
    with TheusEngine(workers=2) as engine:
        value = engine.submit(pow, 2, 3)
        failed = engine.submit(pow, 2, "3")
        crashed = engine.submit(os._exit, 3)
        late = engine.submit(jobs_that_fail.sleep_for_ever, timeout=0.2)
        running = engine.submit(jobs_that_fail.sleep_for_ever, gate.reports)
        gate.arrived(1)
        assert running.cancel()
        kinds = [type(task.exception(60)).__name__ for task in (value, failed, crashed, late)]
        assert kinds == ["NoneType", "TypeError", "WorkerCrashed", "TaskTimeout"]
        assert running.cancelled()
        assert not value.cancel()
        counts = until(lambda: settled(engine), "no task to be left")
        assert counts["done"] == 1
        assert counts["failed"] == 4
        wait([value, failed, crashed, late, running], 60, FIRST_EXCEPTION)
