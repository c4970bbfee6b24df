"""What a program may do to itself without harm: fork, be interrupted, run into its limits.

A forked child that touches theus gets an error and never hangs; Ctrl-C ends every wait; what would
make the library's runtime end the process is refused before.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from polling import until
from processes import descendants
from programs import Ended, run_text, started

OPEN = """
import asyncio, gc, os, signal, sys, time
import numpy as np
import theus
from theus import TheusEngine
engine = TheusEngine({"a": 1}, workers=2)
array = engine.heavy.put("x", np.arange(5.0))
building = engine.heavy.alloc("y", 5)
state = engine.state
future = engine.submit(pow, 2, 3)
assert future.result() == 8

def say(*words):
    print(*words, flush=True)

def sleep():
    say("running")
    while True:
        signal.pause()
"""


# ---- forks ---------------------------------------------------------------------------------------

# Everything that a program can ask of the package; each must be refused in a child.
ENTRIES = [
    "TheusEngine()",
    "engine.state",
    "engine.heavy.alloc('z', 3)",
    "engine.heavy.put('z', [1.0])",
    "engine.heavy.edit('x')",
    "engine.heavy['x']",
    "engine.heavy.get('x')",
    "list(engine.heavy.keys())",
    "list(engine.heavy)",
    "'x' in engine.heavy",
    "engine.heavy.__delitem__('x')",
    "engine.heavy.cleanup()",
    "building.publish()",
    "engine.compare_and_swap(0, data={'b': 1})",
    "engine.run(pow, 2, 3)",
    "engine.submit(pow, 2, 3)",
    "list(engine.map(pow, [2], [3]))",
    "asyncio.run(engine.execute(pow, 2, 3))",
    "engine.execute_parallel('nobody')",
    "engine.options(timeout=3).run(pow, 2, 3)",
    "engine.stats()",
    "engine.reap()",
    "engine.shutdown()",
    "state.data",
    "state.heavy['x']",
    "state.heavy.keys()",
]
# These work: they read what is there already, or have nothing to do.
HARMLESS = [
    "array.sum()",
    "building.fill(3.0)",
    "future.result()",
    "state.version",
    "repr(engine)",
    "engine.close()",
    "theus.is_shared(array)",
]

IN_CHILD = """
def in_child(expression):
    try:
        result = eval(expression)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "fine"

def waited(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_forked_child_is_refused_everything(tmp_path: Path) -> None:
    text = f"""{OPEN}{IN_CHILD}
pid = os.fork()
if pid == 0:
    for expression in {ENTRIES!r}:
        say(expression, "->", in_child(expression))
    os._exit(0)
say(waited(pid), engine.run(pow, 2, 4))
"""
    ended = run_text(text, "-W", "ignore::DeprecationWarning", cwd=tmp_path)
    assert ended.err == ""
    *lines, last = ended.out.splitlines()
    assert last == "0 16"
    answers = dict(line.split(" -> ") for line in lines)
    assert list(answers) == ENTRIES
    for expression, answer in answers.items():
        assert answer.startswith("ForkedProcessError: "), f"{expression}: {answer}"
        assert "spawn" in answer, "what to do"


def test_a_forked_child_may_read_and_end(tmp_path: Path) -> None:
    """It exits through all hooks and finalizers, and the parent has lost nothing."""
    text = f"""{OPEN}{IN_CHILD}
pid = os.fork()
if pid == 0:
    for expression in {HARMLESS!r}:
        say(expression, "->", in_child(expression))
    del state, array, building, engine, future
    gc.collect()
    sys.exit(7)
say(waited(pid), engine.run(pow, 2, 4), array.tolist(), building.tolist())
building.publish()
say(engine.run(lambda ctx: ctx.heavy["x"].sum() + ctx.heavy["y"].sum()), engine.state.data["a"])
say(len(engine.stats()["workers"]))
"""
    ended = run_text(text, "-W", "ignore::DeprecationWarning", "-X", "dev", cwd=tmp_path)
    assert ended.err == ""
    *lines, after, total, workers = ended.out.splitlines()
    assert lines == [f"{expression} -> fine" for expression in HARMLESS]
    # A map of shared memory is shared with children too, as long as it is not published.
    assert after == "7 16 [0.0, 1.0, 2.0, 3.0, 4.0] [3.0, 3.0, 3.0, 3.0, 3.0]"
    assert total == "25.0 1"
    assert workers == "2"


def test_a_multiprocessing_child_ends_and_its_parent_goes_on(tmp_path: Path) -> None:
    text = f"""{OPEN}
import multiprocessing

def child(queue):
    try:
        engine.run(pow, 2, 3)
    except theus.ForkedProcessError as error:
        queue.put("refused")

fork = multiprocessing.get_context("fork")
queue = fork.SimpleQueue()
process = fork.Process(target=child, args=(queue,))
process.start()
say(queue.get())
process.join()
queue.close()
say(process.exitcode, engine.run(pow, 2, 5))
"""
    ended = run_text(text, "-W", "ignore::DeprecationWarning", cwd=tmp_path)
    assert ended == Ended(0, "refused\n0 32\n", "")


def test_a_fork_before_the_library_is_loaded_may_use_it(tmp_path: Path) -> None:
    text = """
import os
import theus
pid = os.fork()
with theus.TheusEngine(workers=1) as engine:
    result = engine.run(pow, 2, 6)
if pid == 0:
    os._exit(result)
print(result, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_text(text, cwd=tmp_path) == Ended(0, "64 64\n", "")


# ---- Ctrl-C --------------------------------------------------------------------------------------

WAITS = {
    "run": "engine.run(sleep)",
    "execute": "asyncio.run(engine.execute(sleep))",
    "future": "engine.submit(sleep).result()",
    "map": "list(engine.map(lambda _: sleep(), [1]))",
    "async map": """
async def main():
    async for _ in engine.map(lambda _: sleep(), [1]):
        pass
asyncio.run(main())
""",
    "shutdown": "engine.submit(sleep); engine.shutdown()",
    "with": """
with engine:
    engine.submit(sleep)
""",
    "options": "engine.options(timeout=1000).run(sleep)",
}


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_ends_every_wait(tmp_path: Path, wait: str) -> None:
    """The wait would last for ever; a program that hangs is killed and fails the test."""
    with started(["-c", OPEN + WAITS[wait]], cwd=tmp_path) as program:
        assert program.line() == "running"
        program.process.send_signal(signal.SIGINT)
        ended = program.end()
    assert ended.code == -signal.SIGINT
    assert ended.err.rstrip().endswith("KeyboardInterrupt")
    assert "theus-" not in ended.err, "a thread of the package has something to say"
    assert list(tmp_path.iterdir()) == []


def test_after_ctrl_c_the_engine_serves_on(tmp_path: Path) -> None:
    text = f"""{OPEN}
for wait in (lambda: engine.run(sleep), lambda: asyncio.run(engine.execute(sleep))):
    try:
        wait()
    except KeyboardInterrupt:
        say("interrupted", engine.run(pow, 2, 3))
deadline = time.monotonic() + 30
while engine.stats()["tasks"]["running"]:
    assert time.monotonic() < deadline
say("idle")
"""
    with started(["-c", text], cwd=tmp_path) as program:
        for _ in range(2):
            assert program.line() == "running"
            program.process.send_signal(signal.SIGINT)
            assert program.line() == "interrupted 8"
        assert program.line() == "idle", "the task that was interrupted has ended"
        assert program.end() == Ended(0, "", "")


def test_ctrl_c_while_a_task_is_being_sent(tmp_path: Path) -> None:
    """The task itself interrupts the host, so it comes as early as it can."""
    text = f"""{OPEN}
host = os.getpid()

def interrupt():
    os.kill(host, signal.SIGINT)
    while True:
        signal.pause()

for _ in range(60):
    try:
        engine.run(interrupt)
    except KeyboardInterrupt:
        pass
    deadline = time.monotonic() + 30
    while engine.stats()["tasks"]["running"]:
        assert time.monotonic() < deadline, "the task runs on, and nobody can end it"
say(engine.run(pow, 2, 3))
"""
    assert run_text(text, cwd=tmp_path) == Ended(0, "8\n", "")


def test_ctrl_c_of_a_terminal_does_not_reach_workers(tmp_path: Path) -> None:
    """A terminal interrupts the whole foreground; a host that goes on keeps its workers."""
    text = f"""{OPEN}
noticed = []  # no Event: its lock may be taken by the very call that the handler interrupts
signal.signal(signal.SIGINT, lambda *_: noticed.append(True))
deadline = time.monotonic() + 60
while [w["state"] for w in engine.stats()["workers"]] != ["idle"] * 2:
    assert time.monotonic() < deadline
pids = sorted(w["pid"] for w in engine.stats()["workers"])
say("ready")
deadline = time.monotonic() + 60
while not noticed:
    assert time.monotonic() < deadline
    time.sleep(0.005)
say("noticed")
say(engine.run(pow, 2, 3), pids == sorted(w["pid"] for w in engine.stats()["workers"]))
"""
    with started(["-c", text], cwd=tmp_path) as program:
        assert program.line() == "ready"
        for pid in (*descendants(program.pid), program.pid):
            os.kill(pid, signal.SIGINT)
        assert program.line() == "noticed"
        assert program.end() == Ended(0, "8 True\n", "")


# ---- limits --------------------------------------------------------------------------------------


def test_too_little_address_space_is_refused_beforehand(tmp_path: Path) -> None:
    text = """
import resource
import numpy
import theus.engine
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 600 * 2**20, resource.RLIM_INFINITY))
try:
    theus.TheusEngine()
except theus.TheusError as refused:
    print(refused)
"""
    ended = run_text(text, cwd=tmp_path)
    assert ended.err == ""
    assert ended.code == 0
    assert "address space" in ended.out
    assert "RLIMIT_AS" in ended.out or "ulimit -v" in ended.out


def test_the_descriptor_limit_stays_as_it_was(tmp_path: Path) -> None:
    """Go raises it, which breaks programs that use select()."""
    text = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 4096))
{OPEN}
say(resource.getrlimit(resource.RLIMIT_NOFILE), engine.run(resource.getrlimit, 7))
"""
    ended = run_text(text, cwd=tmp_path)
    assert ended == Ended(0, "(512, 4096) (512, 4096)\n", "")


def test_signal_handlers_of_the_program_stay(tmp_path: Path) -> None:
    text = f"""
import signal
signal.signal(signal.SIGTERM, lambda *_: print("terminated", flush=True))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
{OPEN}
say(signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN, engine.run(pow, 2, 3))
os.kill(os.getpid(), signal.SIGTERM)
handlers = engine.run(lambda: [signal.getsignal(n).name for n in (15, 13, 17, 2)])
say(handlers)
"""
    ended = run_text(text, cwd=tmp_path)
    # As in any Python program, but that Ctrl-C is the host's business.
    expected = "['SIG_DFL', 'SIG_IGN', 'SIG_DFL', 'SIG_IGN']"
    assert ended == Ended(0, f"True 8\nterminated\n{expected}\n", "")


def test_the_library_is_loaded_with_the_first_engine(tmp_path: Path) -> None:
    text = """
import theus
from theus import TheusEngine, process
from pathlib import Path
maps = lambda: "libtheus" in Path("/proc/self/maps").read_text()
print(maps())
engine = TheusEngine(workers=1)
print(maps())
print(engine.run(lambda: "libtheus" in Path("/proc/self/maps").read_text()))
"""
    ended = run_text(text, cwd=tmp_path)
    assert ended == Ended(0, "False\nTrue\nFalse\n", "")


def test_programs_here_have_no_leftovers_of_their_own() -> None:
    """The names that the programs use are those of the package."""
    import theus

    names = set(re.findall(r"theus\.(\w+)", "\n".join([OPEN, *ENTRIES, *HARMLESS])))
    assert names <= set(theus.__all__)
    until(lambda: not descendants(os.getpid()), "no program to be left")
