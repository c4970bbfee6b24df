"""A program's own handling of signals works as it did before the engine was opened."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import jobs
import processes
from conftest import EngineFactory
from polling import until
from programs import Ended, run_text, started

# What the kernel has for each signal: handler, flags.
TABLE = """
import ctypes, json, signal

class Action(ctypes.Structure):
    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]

def actions():
    libc = ctypes.CDLL(None, use_errno=True)
    found = {}
    for number in range(1, 65):
        action = Action()
        if libc.sigaction(number, None, ctypes.byref(action)) == 0:
            found[number] = [action.handler or 0, action.flags]
    return found
"""

# docs/reliability.md has this list.
CHANGED = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGPIPE, signal.SIGURG}
ON_STACK = 0x08000000


def test_loading_changes_the_documented_handlers_and_no_other(tmp_path: Path) -> None:
    text = f"""{TABLE}
signal.signal(signal.SIGUSR1, lambda *_: print("SIGUSR1"))
signal.signal(signal.SIGCHLD, lambda *_: None)
before = actions()
from theus import TheusEngine
with TheusEngine(workers=1) as engine:
    assert engine.run(pow, 2, 3) == 8
    print(json.dumps([before, actions()]))
"""
    ended = run_text(text, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    before, after = json.loads(ended.out)
    assert {int(n) for n in before if before[n] != after[n]} == CHANGED
    for number in CHANGED:
        # On whose stack it runs matters to threads of Go, which have small ones.
        assert after[str(int(number))][1] & ON_STACK


def test_pythons_handlers_run_while_an_engine_is_used(tmp_path: Path) -> None:
    """Handlers from before and after the engine was opened, a wake-up descriptor, and signals
    that are waited for: blocked before there are threads, ours block them as well."""
    text = """
import os, signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # before numpy starts its threads
from theus import TheusEngine
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append("before"))
ours, theirs = socket.socketpair()
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
engine = TheusEngine(workers=1)
signal.signal(signal.SIGHUP, lambda number, frame: seen.append("after"))
parent = os.getpid()

def signal_host(number):
    os.kill(parent, number)

for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1):
    engine.run(signal_host, number)
    assert ours.recv(1)[0] == number
print(seen, engine.run(pow, 2, 3))
engine.submit(signal_host, signal.SIGUSR2).result()
print(signal.sigtimedwait([signal.SIGUSR2], 60).si_signo == signal.SIGUSR2, len(seen))
"""
    ended = run_text(text, cwd=tmp_path)
    assert ended == (0, "['before', 'after', 'before'] 8\nTrue 3\n", "")


def test_a_storm_of_timer_signals(tmp_path: Path) -> None:
    """Each interrupts some system call: of Python's, of the library's, the giving of pages."""
    text = """
import asyncio, signal
import numpy as np
from theus import TheusEngine
ticks = 0

def tick(*_):
    global ticks
    ticks += 1

for which, number in ((signal.ITIMER_REAL, signal.SIGALRM), (signal.ITIMER_PROF, signal.SIGPROF)):
    signal.signal(number, tick)
    signal.setitimer(which, 0.001, 0.001)

async def main():
    return sum(await asyncio.gather(*(engine.execute(pow, i, 2) for i in range(50))))

with TheusEngine(workers=2) as engine:
    round = 0
    while round < 3 or ticks <= 100:  # a fast machine is through with three in less
        round += 1
        array = engine.heavy.alloc("x", 12_000_000)
        array[:] = round
        array.publish()
        assert engine.run(lambda ctx: float(ctx.heavy["x"].sum())) == 12e6 * round
        assert list(engine.map(pow, range(200), [2] * 200)) == [i * i for i in range(200)]
        assert engine.submit(np.ones, 300_000).result().sum() == 3e5
        assert asyncio.run(main()) == 40425
for which in (signal.ITIMER_REAL, signal.ITIMER_PROF):
    signal.setitimer(which, 0)
print("through")
"""
    assert run_text(text, cwd=tmp_path) == (0, "through\n", "")


# ---- faults --------------------------------------------------------------------------------------

FAULT = """
import ctypes, faulthandler, sys, threading
order, where = sys.argv[1:]
if order == "before":
    faulthandler.enable()
from theus import TheusEngine
engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
if order == "after":
    faulthandler.enable()
print("ready", flush=True)
fault = lambda: ctypes.string_at(8)
if where == "thread":
    thread = threading.Thread(target=fault)
    thread.start()
    thread.join()
else:
    fault()
"""


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("order", ["before", "after", "never"])
def test_a_fault_of_the_program_ends_it_as_without_us(
    tmp_path: Path, order: str, where: str
) -> None:
    """By SIGSEGV, with Python's report if it was asked for, and none of Go's."""
    with started(["-c", FAULT, order, where], cwd=tmp_path) as program:
        assert program.line() == "ready"
        ended = program.end()
    assert ended.code == -signal.SIGSEGV
    assert "goroutine" not in ended.err
    if order == "never":
        assert ended.err == ""
    else:
        assert ended.err.startswith("Fatal Python error: Segmentation fault")
        assert ended.err.count("Current thread") == 1


def test_a_tasks_handler_may_use_ctx_in_the_middle_of_ctx(make_engine: EngineFactory) -> None:
    # It gets what it asks for, or is told why not; with plain locks the worker hangs.
    engine = make_engine(workers=1)
    for _ in range(50):
        served, refused = engine.run(jobs.use_ctx_in_a_handler, 60.0, timeout=90)
        assert served > 0
        assert len(refused) == 1, f"one way to be refused a request, not {refused}"
        assert "signal handler" in refused[0]
    assert engine.run(pow, 2, 3) == 8


def test_a_tasks_handler_may_raise_in_the_middle_of_ctx(make_engine: EngineFactory) -> None:
    # Long before it has done so that often, a lock stayed taken or a frame was lost, and the worker
    # was of no use any more.
    engine = make_engine(workers=1)
    engine.heavy.put("large", np.ones(1_000_000))
    assert engine.run(pow, 2, 3) == 8
    in_use = engine.stats()["memory"]["in_use"]
    (worker,) = engine.stats()["workers"]
    descriptors = processes.descriptors(worker["pid"])
    assert min(engine.run(jobs.give_up_often, "large", 3000, 120.0, timeout=180)) >= 3000
    # Not right after the task: the answer to a request that was given up may come late, in one
    # read with another one's, and then waits with its descriptor for whoever reads next.
    until(
        lambda: engine.run(pow, 2, 3) == 8 and processes.descriptors(worker["pid"]) == descriptors,
        "all descriptors to be closed",
    )
    assert [w["pid"] for w in engine.stats()["workers"]] == [worker["pid"]]
    until(
        lambda: engine.reap() and engine.stats()["memory"]["in_use"] == in_use,
        "copies that were given up to be given back",
    )


def test_a_tasks_handler_is_what_it_was_set_to(make_engine: EngineFactory) -> None:
    assert make_engine(workers=1).run(jobs.set_handlers) == []


def test_a_child_that_a_tasks_handler_forks_does_not_speak_for_the_worker(
    make_engine: EngineFactory, tmp_path: Path
) -> None:
    """It comes back from the handler into the worker's sleep, and goes on to wake up, over memory
    that worker and host share. Were it to say so there, the worker would sleep through a task, and
    be replaced in the end."""
    engine = make_engine(workers=1)
    worker = engine.run(jobs.fork_when_signalled, str(tmp_path / "child"))
    for _ in range(20):
        assert engine.run(os.getpid) == worker
    until(lambda: processes.state(worker) == "S", "the worker sleeps")
    os.kill(worker, signal.SIGUSR1)
    until((tmp_path / "child").exists, "its child has ended")
    assert engine.run(os.getpid) == worker


def test_a_fault_of_a_task_is_its_own_whatever_the_host_reports(tmp_path: Path) -> None:
    text = """
import ctypes, faulthandler, os, sys, time
from theus import TheusEngine, WorkerCrashed
faulthandler.enable()
engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
report = open(sys.argv[1], "w")
faulthandler.dump_traceback_later(0.05, file=report)
while not os.path.getsize(sys.argv[1]):
    time.sleep(0.2)  # while this thread rests: what runs on meanwhile can crash faulthandler itself
faulthandler.dump_traceback_later(1000, file=report)  # armed, as test runners have it
for order in ("enabled", "disabled"):
    try:
        engine.run(ctypes.string_at, 8)
    except WorkerCrashed as crash:
        print(order, crash.signal, engine.run(pow, 2, 3))
    faulthandler.disable()
faulthandler.cancel_dump_traceback_later()
"""
    report = tmp_path / "report"
    with started(["-c", text, str(report)], cwd=tmp_path) as program:
        ended = program.end()
    assert ended == Ended(0, "enabled 11 8\ndisabled 11 8\n", "")
    assert "Timeout" in report.read_text(), "the watchdog of faulthandler works beside us"


# ---- a reader that has left ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("set_up", "code"),
    [
        ("", 1),  # as always in Python: BrokenPipeError
        ("signal.signal(signal.SIGPIPE, signal.SIG_DFL)", -signal.SIGPIPE),
    ],
)
@pytest.mark.parametrize("order", ["before", "after"])
def test_writing_to_a_closed_pipe(tmp_path: Path, order: str, set_up: str, code: int) -> None:
    """`program | head -1`; a program that has SIGPIPE end it is ended, whenever it said so."""
    text = f"""
import os, signal
{set_up if order == "before" else ""}
from theus import TheusEngine
engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
{set_up if order == "after" else ""}
print("first line", flush=True)
while True:
    os.write(1, b"another line")
"""
    with started(["-c", text], cwd=tmp_path) as program:
        assert program.line() == "first line"
        assert program.process.stdout is not None
        program.process.stdout.close()
        program.process.stdout = None
        _, err = program.process.communicate(timeout=60)
        program.gone()
    assert program.process.returncode == code
    assert err.count("BrokenPipeError") == (code == 1), err


def test_messages_to_dead_workers_are_no_broken_pipes_of_the_host(tmp_path: Path) -> None:
    """They are sent to a socket that the worker's death has closed, before anybody has noticed."""
    text = """
import os, signal
from theus import TheusEngine
engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
for _ in range(60):
    pid = engine.run(os.getpid)
    os.kill(pid, signal.SIGKILL)
    future = engine.submit(len, bytes(60_000), retries=3)
    assert future.result(60) == 60_000
print("it lives")
"""
    assert run_text(text, cwd=tmp_path) == Ended(0, "it lives\n", "")


def test_a_task_may_print_when_nobody_reads_any_more(tmp_path: Path) -> None:
    """It fails by itself with BrokenPipeError; host and worker go on."""
    text = """
import os, sys
from theus import TheusEngine
engine = TheusEngine(workers=1)
pid = engine.run(os.getpid)
print("ready", flush=True)
sys.stdin.readline()
try:
    engine.run(os.write, 1, b"to nobody")
except BrokenPipeError:
    sys.stderr.write(f"refused {engine.run(os.getpid) == pid}\\n")
sys.stdout = None
"""
    with started(["-c", text], cwd=tmp_path, source="") as program:
        assert program.line() == "ready"
        assert program.process.stdout is not None
        program.process.stdout.close()
        program.process.stdout = None
        _, err = program.process.communicate("\n", timeout=60)
        program.gone()
    assert (program.process.returncode, err) == (0, "refused True\n")


def test_the_alternative_stack_of_a_thread_stays(tmp_path: Path) -> None:
    """faulthandler gives the main thread one; what Go runs on it must leave it as it was."""
    text = """
import ctypes, faulthandler

class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def alternative_stack():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.sp, stack.flags, stack.size

faulthandler.enable()
before = alternative_stack()
from theus import TheusEngine
engine = TheusEngine(workers=1)
for _ in range(100):
    engine.run(pow, 2, 3)
engine.heavy.put("x", [1.0])
print(before[2] > 0, alternative_stack() == before)
"""
    assert run_text(text, cwd=tmp_path) == (0, "True True\n", "")


def test_the_table_is_of_this_python() -> None:
    """The structure that the table reads is right: it sees a handler of ours."""
    namespace: dict[str, object] = {}
    exec(TABLE, namespace)
    before = namespace["actions"]()  # type: ignore[operator]
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        after = namespace["actions"]()  # type: ignore[operator]
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert {n for n in before if before[n] != after[n]} == {signal.SIGUSR1}
