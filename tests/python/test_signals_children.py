"""Hosts with rules of their own about children: who reaps them, and whose they are."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from polling import until
from processes import alive
from programs import Ended, run_text, started

WORK = """
import os, signal, sys, threading, time
from theus import TheusEngine, WorkerCrashed

def children():
    tasks = os.listdir("/proc/self/task")
    found = []
    for task in tasks:
        try:
            found += open(f"/proc/self/task/{task}/children").read().split()
        except OSError:
            pass  # that thread has ended; its children are another's
    return found

def settled():
    # The children that are left once those have ended that nobody waits for.
    deadline = time.monotonic() + 30
    while children() and time.monotonic() < deadline:
        time.sleep(0.01)
    return children()

def work(engine, rounds):
    for _ in range(rounds):
        assert engine.run(pow, 2, 3) == 8  # the other worker may be just being forked
        try:
            engine.run(os.kill, 0, 9)  # its own process group: the zygote's, with all workers
        except WorkerCrashed:
            pass
        try:
            engine.run(os._exit, 5)
        except WorkerCrashed as crash:
            assert crash.exit_code == 5, crash
        assert engine.run(pow, 2, 4) == 16
"""


def test_a_thread_that_reaps_all_children(tmp_path: Path) -> None:
    """As supervisors have. The zygote is a child of the host, and its end is noticed all the
    same; workers are the zygote's children, so their exit codes are not lost."""
    text = f"""{WORK}
stolen, stop = [], threading.Event()

def thief():
    while not stop.is_set():
        try:
            stolen.append(os.waitpid(-1, 0)[0])
        except ChildProcessError:
            time.sleep(0.001)

thread = threading.Thread(target=thief, daemon=True)
thread.start()
with TheusEngine(workers=2) as engine:
    deadline = time.monotonic() + 120
    while not stolen:  # each round ends a zygote, and whoever is faster reaps it
        assert time.monotonic() < deadline, "the engine was always faster"
        work(engine, 1)
stop.set()
thread.join()
print(children())
"""
    assert run_text(text, cwd=tmp_path) == (0, "[]\n", "")


def test_a_host_that_ignores_the_end_of_children(tmp_path: Path) -> None:
    """With SIGCHLD ignored the kernel reaps; exec hands that down, and workers undo it."""
    text = f"""{WORK}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with TheusEngine(workers=2) as engine:
    work(engine, 1)
    assert engine.run(os.system, "exit 3") >> 8 == 3  # a task that needs its own children's ends
print(children())
"""
    assert run_text(text, cwd=tmp_path) == (0, "[]\n", "")


def test_a_handler_of_sigchld_that_reaps_what_ended(tmp_path: Path) -> None:
    text = f"""{WORK}
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

signal.signal(signal.SIGCHLD, reap)
with TheusEngine(workers=2) as engine:
    work(engine, 1)
print(children())
"""
    assert run_text(text, cwd=tmp_path) == (0, "[]\n", "")


SUBREAPER = """
import ctypes
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
"""


def test_a_host_that_adopts_orphans(tmp_path: Path) -> None:
    """Workers whose zygote died become its own children; they are reaped, not left as zombies."""
    text = f"""{WORK}{SUBREAPER}
engine = TheusEngine(workers=2)
work(engine, 1)
engine.close()
print(settled())
"""
    assert run_text(text, cwd=tmp_path) == (0, "[]\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="making a namespace of processes takes root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare command")
def test_a_host_that_is_process_1(tmp_path: Path) -> None:
    """As in a container: nobody else reaps, and default actions of signals do not end it."""
    text = f"""{WORK}
assert os.getpid() == 1
engine = TheusEngine(workers=2)
work(engine, 1)
engine.close()
print(settled())
other = TheusEngine(workers=1)
print(other.run(os.getppid) != 1)
other.submit(time.sleep, 1000)
"""
    ended = run_text(
        text, cwd=tmp_path, prefix=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    )
    assert ended == (0, "[]\nTrue\n", "")


# ---- threads -------------------------------------------------------------------------------------


def test_the_thread_that_opened_the_engine_ends(tmp_path: Path) -> None:
    """The kernel would end its children with the thread that started them."""
    text = f"""{WORK}
import asyncio
engines = []
for _ in range(3):
    thread = threading.Thread(target=lambda: engines.append(TheusEngine(workers=1)))
    thread.start()
    thread.join()
pids = [engine.run(os.getpid) for engine in engines]
# Threads that come and go, with children of theirs started meanwhile.
for _ in range(20):
    thread = threading.Thread(target=lambda: engines[0].submit(pow, 2, 3).result())
    thread.start()
    thread.join()

async def main():
    other = asyncio.to_thread(lambda: engines[1].run(pow, 3, 2))
    return await asyncio.gather(other, engines[2].execute(pow, 2, 2))

print(asyncio.run(main()), [engine.run(os.getpid) for engine in engines] == pids)
"""
    assert run_text(text, cwd=tmp_path) == (0, "[9, 4] True\n", "")


def test_engines_in_several_threads_at_once(tmp_path: Path) -> None:
    text = f"""{WORK}
import numpy as np
results = []

def whole_life(number):
    with TheusEngine(workers=1) as engine:
        engine.heavy.put("x", np.full(1000, float(number)))
        results.append(engine.run(lambda ctx: float(ctx.heavy["x"].sum())))

threads = [threading.Thread(target=whole_life, args=(n,)) for n in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(results), children())
"""
    expected = [float(n * 1000) for n in range(6)]
    assert run_text(text, cwd=tmp_path) == (0, f"{expected} []\n", "")


def test_twenty_engines_one_after_the_other(tmp_path: Path) -> None:
    text = f"""{WORK}
import gc

def holdings():
    gc.collect()
    maps = open("/proc/self/maps").read()
    return len(os.listdir("/proc/self/fd")), maps.count("/memfd:"), threading.active_count()

for number in range(20):
    with TheusEngine(workers=1) as engine:
        engine.heavy.put("x", [1.0, 2.0])
        engine.submit(pow, 2, 3).result()
    del engine
    if number == 2:
        before = holdings()  # what is made once is there
deadline = time.monotonic() + 30
while holdings() != before and time.monotonic() < deadline:
    time.sleep(0.01)
print(holdings() == before or (before, holdings()), children())
"""
    assert run_text(text, cwd=tmp_path) == (0, "True []\n", "")


# ---- stops ---------------------------------------------------------------------------------------


def test_a_host_that_is_stopped_and_goes_on(tmp_path: Path) -> None:
    """Workers go on meanwhile. A task that ended in time has ended in time, whenever the host
    looks; one that was still running has its timeout."""
    text = """
import os, signal, sys, time
from pathlib import Path
from theus import TaskTimeout, TheusEngine
engine = TheusEngine(workers=2)
deadline = time.monotonic() + 60
while [w["state"] for w in engine.stats()["workers"]] != ["idle"] * 2:
    assert time.monotonic() < deadline  # both are there: each gets one of the two tasks
    time.sleep(0.005)
host, ended = os.getpid(), Path(sys.argv[1])

def stop_host_and_end(patience):
    os.kill(host, signal.SIGSTOP)
    time.sleep(patience)
    ended.touch()
    return "in time"

def endless():
    while True:
        signal.pause()

future = engine.submit(endless, timeout=2)
print(engine.run(stop_host_and_end, 0.1, timeout=1.5))
try:
    future.result()
except TaskTimeout:
    print("timeout", engine.run(pow, 2, 3))
"""
    ended = tmp_path / "ended"
    with started(["-c", text, str(ended)], cwd=tmp_path) as program:
        until(ended.exists, "the task to end while its host is stopped")
        until(lambda: _is_stopped(program.pid), "the host to be stopped")
        # Long enough for both timeouts to run out, while the host cannot see that.
        with pytest.raises(TimeoutError):
            signal_wait(2.5)
        assert alive(program.pid)
        os.kill(program.pid, signal.SIGCONT)
        assert program.end() == Ended(0, "in time\ntimeout 8\n", "")


def signal_wait(seconds: float) -> None:
    """Let time pass: that is what is tested."""
    if not signal.sigtimedwait([], seconds):
        raise TimeoutError


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
