"""Ends of programs that did not close what they opened; more are in test_ways_to_run.

Quick, silent and clean: each prints only what it says itself, and leaves no process behind.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from programs import Ended, run_text

OPEN = """
import asyncio, atexit, os, signal, sys, threading, time
import numpy as np
from theus import TheusEngine
engine = TheusEngine(workers=2)
array = engine.heavy.put("x", np.arange(10.0))

def sleep(*_):
    while True:
        signal.pause()

def running(count):
    while engine.stats()["tasks"]["running"] < count:
        time.sleep(0.001)
"""

ENDS = {
    "futures of asyncio that nobody awaits": (
        """
async def main():
    tasks = [asyncio.ensure_future(engine.execute(sleep)) for _ in range(4)]
    await asyncio.sleep(0)
    while not engine.stats()["tasks"]["running"]:
        await asyncio.sleep(0.001)
asyncio.run(main())
""",
        0,
    ),
    "a loop that was stopped and never closed": (
        """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
loop = asyncio.new_event_loop()
loop.set_debug(False)  # of -X dev; Python 3.13 fails to show such a loop, with theus or without
task = loop.create_task(engine.execute(pow, 2, 3))
loop.run_until_complete(task)
loop.stop()
""",
        0,
    ),
    "threads that wait": (
        """
for _ in range(2):
    threading.Thread(target=engine.run, args=(sleep,), daemon=True).start()
threading.Thread(target=lambda: list(engine.map(sleep, range(4))), daemon=True).start()
threading.Thread(target=lambda: engine.submit(sleep).result(), daemon=True).start()
threading.Thread(target=lambda: asyncio.run(engine.execute(sleep)), daemon=True).start()
running(2)
""",
        0,
    ),
    "from a thread": (
        """
def main():
    engine.submit(sleep)
    running(1)
    os._exit(5)
threading.Thread(target=main).start()
""",
        5,
    ),
    "sys.exit in a callback of a future": (
        """
called = []

def leave(future):
    called.append(threading.current_thread())
    sys.exit(6)

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.001)

future = engine.submit(wait_for, os.path.abspath("go"))
future.add_done_callback(leave)  # while it runs, or this thread would call it
open("go", "w").close()
deadline = time.monotonic() + 60
while not called:
    assert time.monotonic() < deadline
    time.sleep(0.001)
assert called != [threading.main_thread()]
engine.submit(sleep)
running(1)
""",
        0,  # it is not the main thread that leaves
    ),
    "sys.exit in a task": (
        """
try:
    engine.run(sys.exit, 3)
except BaseException as end:
    sys.exit(7 if isinstance(end, Exception) or end.code == 3 else 1)
""",
        7,
    ),
    "an engine of another thread": (
        """
def work():
    global other
    other = TheusEngine(workers=1)
    other.submit(sleep)
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
        0,
    ),
    "an array under construction, views and results": (
        """
building = engine.heavy.alloc("y", 1000)
results = engine.submit(np.ones, 300_000)
kept = [results.result(), engine.state, array[2:], memoryview(array)]
engine.submit(sleep)
""",
        0,
    ),
    "a task that waits for memory": (
        """
from theus import HeapFull

def keep(ctx):
    sys.kept = ctx.heavy["x"]

def want(ctx, asked):
    while True:  # each time it waits a little for whoever may let go of what was retired
        try:
            ctx.heavy.alloc("y", 12 << 20, np.uint8)
        except HeapFull:
            open(asked, "w").close()

small = TheusEngine(workers=1, heap=16 << 20)
small.heavy.put("x", np.ones(12 << 20, np.uint8))
small.run(keep)
del small.heavy["x"]
small.submit(want, os.path.abspath("asked"))
deadline = time.monotonic() + 60
while not (os.path.exists("asked") and small.stats()["memory"]["retiring"]):
    assert time.monotonic() < deadline
    time.sleep(0.001)
""",
        0,
    ),
    "an engine that is just starting": ("late = TheusEngine(workers=2)", 0),
    "a queue full of tasks": ("futures = [engine.submit(sleep) for _ in range(200)]", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_quick_silent_and_clean(tmp_path: Path, end: str) -> None:
    text, code = ENDS[end]
    assert run_text(OPEN + text, "-X", "dev", cwd=tmp_path) == Ended(code, "", "")


def test_hooks_of_the_program_read_what_they_kept(tmp_path: Path) -> None:
    """Those that were registered before theus came run after the engine is closed."""
    text = f"""
import atexit
kept = []
atexit.register(lambda: print("last", kept[0].sum(), float(kept[1].heavy["x"][3]), kept[2]()))
{OPEN}
def closed():
    try:
        engine.run(pow, 2, 3)
    except Exception as failure:
        return type(failure).__name__

kept += [array[5:], engine.state, closed]
kept[1].heavy["x"]
atexit.register(lambda: print("first", kept[0].sum(), engine.run(pow, 2, 3)))
engine.submit(sleep)
running(1)
"""
    ended = run_text(text, cwd=tmp_path)
    assert ended == Ended(0, "first 35.0 8\nlast 35.0 3.0 EngineClosed\n", "")


def test_an_exception_is_all_that_is_printed(tmp_path: Path) -> None:
    text = f"""{OPEN}
futures = [engine.submit(sleep) for _ in range(4)]
threading.Thread(target=engine.run, args=(sleep,), daemon=True).start()
running(2)
raise LookupError("mine")
"""
    ended = run_text(text, cwd=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Traceback (most recent call last):\n")
    assert ended.err.endswith("LookupError: mine\n")
    assert ended.err.count("\n") == 3 + (sys.version_info >= (3, 13))  # which shows the source


def test_closing_from_several_threads_and_within_itself(tmp_path: Path) -> None:
    """Each call returns when the engine is closed, also one from a signal handler."""
    text = f"""{OPEN}
def gone(pid):
    try:
        return open(f"/proc/{{pid}}/stat").read().split()[2] in "ZX"
    except OSError:
        return True

futures = [engine.submit(sleep) for _ in range(4)]
running(2)
pids = [worker["pid"] for worker in engine.stats()["workers"]]
answers = []

def close():
    engine.close()
    answers.append(all(map(gone, pids)) and all(f.cancelled() for f in futures))

def interrupted(*_):
    if len(within) < 20:  # within each other: close may take longer than the timer
        within.append(1)
        close()

within = []
signal.signal(signal.SIGALRM, interrupted)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
threads = [threading.Thread(target=close) for _ in range(4)]
for thread in threads:
    thread.start()
close()
for thread in threads:
    thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
print(all(answers), len(answers) >= 5)
"""
    assert run_text(text, cwd=tmp_path) == Ended(0, "True True\n", "")


def test_closing_within_each_step_of_closing(tmp_path: Path) -> None:
    """A signal handler that closes finds any lock of ours taken by the call that it interrupts."""
    text = f"""{OPEN}
import concurrent.futures
engine.close()
steps = [
    (os, "eventfd_write"),
    (os, "close"),
    (threading.Thread, "join"),
    (threading.Condition, "notify_all"),
    (asyncio.SelectorEventLoop, "is_closed"),
]

def interrupt_after(owner, name):
    original = getattr(owner, name)

    def step(*arguments):
        result = original(*arguments)
        if threading.current_thread() is threading.main_thread() and not within:
            within.append(name)
            signal.raise_signal(signal.SIGALRM)
        return result

    setattr(owner, name, step)
    return original

async def await_one():
    return await engine.execute(pow, 2, 3)

signal.signal(signal.SIGALRM, lambda *_: engine.close())
loop = asyncio.new_event_loop()
reached = []
for owner, name in steps:
    engine = TheusEngine(workers=2)
    loop.run_until_complete(await_one())
    futures = [engine.submit(sleep) for _ in range(4)]
    running(2)
    within = []
    original = interrupt_after(owner, name)
    engine.close()
    setattr(owner, name, original)
    assert all(future.cancelled() for future in futures), name
    reached += within
loop.close()
with TheusEngine(workers=1) as engine:
    future = engine.submit(sleep)
    signal.signal(signal.SIGALRM, lambda *_: print(future.cancel()))
    within = []
    original = interrupt_after(concurrent.futures.Future, "cancel")
    print(future.cancel())
    concurrent.futures.Future.cancel = original
    print(list(concurrent.futures.as_completed([future])) == [future], *reached)
"""
    reached = "eventfd_write close join notify_all is_closed"
    assert run_text(text, cwd=tmp_path) == Ended(0, f"True\nTrue\nTrue {reached}\n", "")
