"""Forks of the host as servers and pools make them; the basics are in test_invariants_programs."""

from __future__ import annotations

from pathlib import Path

from programs import Ended, run, run_text

QUIET = ("-W", "ignore::DeprecationWarning")  # 3.12 warns of forks beside threads

OPEN = """
import os, signal, socket, sys, threading, time
import numpy as np
import theus
from theus import TheusEngine

def waited(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

# Each child serves requests until told to stop: a line with a number, its square as the answer.
SERVER = f"""{OPEN}
def serve(listener, compute):
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            text = stream.readline().strip()
            if text == "stop":
                return
            try:
                answer = compute(int(text))
            except theus.TheusError as failure:
                answer = type(failure).__name__
            print(answer, file=stream, flush=True)

def ask(listener, text):
    client = socket.create_connection(listener.getsockname())
    with client, client.makefile("rw") as stream:
        print(text, file=stream, flush=True)
        return stream.readline().strip()

def children(count, listener, compute, before=lambda: None, after=lambda: None):
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            before()
            serve(listener, compute)
            after()
            sys.exit(0)
        pids.append(pid)
    return pids

listener = socket.create_server(("127.0.0.1", 0))
"""


def test_a_server_that_opens_an_engine_in_each_child(tmp_path: Path) -> None:
    text = f"""{SERVER}
engine = None

def open_engine():
    global engine
    engine = TheusEngine(workers=1)
    engine.heavy.put("x", np.arange(4.0))

def compute(n):
    return engine.run(lambda ctx, n: n * n + float(ctx.heavy["x"].sum()), n)

pids = children(2, listener, compute, before=open_engine)
print(sorted(ask(listener, n) for n in range(6)))
for _ in pids:
    ask(listener, "stop")
print([waited(pid) for pid in pids])
"""
    expected = sorted(f"{n * n + 6.0}" for n in range(6))
    ended = run_text(text, *QUIET, cwd=tmp_path)
    assert ended == Ended(0, f"{expected}\n[0, 0]\n", "")


def test_a_server_that_opened_its_engine_before_it_forked(tmp_path: Path) -> None:
    """The children are refused, the parent serves on, and no child takes anything with it: they
    end by sys.exit, through all hooks and finalizers, while tasks of the parent run."""
    text = f"""{SERVER}
engine = TheusEngine(workers=2)
array = engine.heavy.put("x", np.arange(4.0))
building = engine.heavy.alloc("y", 4)
view, state = array[1:], engine.state
gate_read, gate_write = os.pipe()

def wait_at(path):
    os.close(os.open(path, os.O_RDONLY))
    return "through"

os.mkfifo("gate")
running = engine.submit(wait_at, os.path.abspath("gate"))
while not engine.stats()["tasks"]["running"]:
    time.sleep(0.001)

def drop_all():
    global engine, array, building, view, state, running
    print("read in a child:", view.sum(), flush=True)
    engine = array = building = view = state = running = None

pids = children(3, listener, lambda n: engine.run(pow, n, 2), after=drop_all)
print([ask(listener, n) for n in range(4)], flush=True)
for _ in pids:
    ask(listener, "stop")
print([waited(pid) for pid in pids], flush=True)
os.close(os.open("gate", os.O_WRONLY))
print(running.result(), view.sum(), engine.run(pow, 5, 2), state.heavy["x"].sum())
building[:] = 1
building.publish()
print(engine.run(lambda ctx: float(ctx.heavy["y"].sum())), len(engine.stats()["workers"]))
os.unlink("gate")
"""
    ended = run_text(text, *QUIET, cwd=tmp_path)
    refused = ["ForkedProcessError"] * 4
    assert ended.err == ""
    first, *reads, codes, after, last = ended.out.splitlines()
    assert first == str(refused)
    assert reads == ["read in a child: 6.0"] * 3
    assert codes == "[0, 0, 0]"
    assert after == "through 6.0 25 6.0"
    assert last == "4.0 2"


WAYS_OUT = """
def by_exit(): sys.exit(4)
def by_os_exit(): os._exit(4)
def by_exception(): raise SystemExit(4)
def by_thread():
    codes = []
    def fork_in_thread():
        pid = os.fork()
        if pid == 0:
            try:
                engine.run(pow, 2, 3)
            except theus.ForkedProcessError:
                os._exit(4)
        codes.append(waited(pid))
    thread = threading.Thread(target=fork_in_thread)
    thread.start()
    thread.join()
    os._exit(codes[0])
def by_grandchild():
    pid = os.fork()
    if pid == 0:
        try:
            engine.run(pow, 2, 3)
        except theus.ForkedProcessError:
            sys.exit(4)
    sys.exit(waited(pid))
def by_closing():
    engine.close()
    sys.exit(4)
def by_with():
    with engine:
        sys.exit(4)
def by_exec(): os.execv(sys.executable, [sys.executable, "-c", "raise SystemExit(4)"])
"""


def test_children_end_silently_however_they_end(tmp_path: Path) -> None:
    text = f"""{OPEN}{WAYS_OUT}
engine = TheusEngine(workers=1)
kept = [engine.heavy.put("x", np.arange(4.0)), engine.state, engine.submit(pow, 2, 3)]
queue = engine.map(pow, range(100), range(100))
next(queue)
def unfinished():
    next(queue)
    return engine.run(pow, 2, 3)
for way in (by_exit, by_os_exit, by_exception, by_thread, by_grandchild, by_closing, by_with,
            by_exec):
    pid = os.fork()
    if pid == 0:
        way()
    code = waited(pid)
    print(way.__name__, code, unfinished(), flush=True)
"""
    ended = run_text(text, *QUIET, "-X", "dev", "-W", "ignore", cwd=tmp_path)
    assert ended.err == ""
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert len(lines) == 8
    assert all(line.endswith(" 4 8") for line in lines), lines


def test_multiprocessing_and_an_engine_side_by_side(tmp_path: Path) -> None:
    """A pool of multiprocessing that forks, made after and used beside; its workers read views."""
    script = tmp_path / "script.py"
    script.write_text(f"""{OPEN}
import multiprocessing

engine = TheusEngine(workers=2)
shared = engine.heavy.put("x", np.arange(1000.0))

def from_view(n):
    return float(shared[n])

def refused(n):
    try:
        engine.heavy["x"]
    except theus.ForkedProcessError:
        return "refused"

if __name__ == "__main__":
    futures = [engine.submit(pow, n, 2) for n in range(20)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(from_view, range(5)), pool.apply(refused, (0,)))
        print(list(engine.map(pow, range(5), [2] * 5)))
        pool.close()
        pool.join()
    print(sum(f.result() for f in futures))
""")
    ended = run([*QUIET, str(script)], cwd=tmp_path)
    expected = "[0.0, 1.0, 2.0, 3.0, 4.0] refused\n[0, 1, 4, 9, 16]\n2470\n"
    assert ended == Ended(0, expected, "")


def test_forks_while_the_library_is_loaded(tmp_path: Path) -> None:
    """By another thread: the child has the library whole, and is refused, or not at all."""
    text = f"""{OPEN}
import theus.engine
pids = []

def fork_on():
    while theus._core._core is None or len(pids) < 5:
        pid = os.fork()
        if pid == 0:
            signal.alarm(100)  # ends a child that hangs
            try:
                with TheusEngine(workers=1) as engine:
                    code = engine.run(pow, 2, 3)
            except theus.ForkedProcessError:
                code = 9
            os._exit(code)
        pids.append(pid)
        time.sleep(0.002)

thread = threading.Thread(target=fork_on)
thread.start()
with TheusEngine(workers=1) as engine:
    assert engine.run(pow, 2, 3) == 8
thread.join()
codes = [waited(pid) for pid in pids]
print(set(codes) <= {{8, 9}} or codes, 9 in codes)
"""
    ended = run_text(text, *QUIET, cwd=tmp_path)
    assert ended == Ended(0, "True True\n", "")


def test_programs_that_the_host_starts_inherit_no_descriptor(tmp_path: Path) -> None:
    """Not even with close_fds=False: they would keep sockets and memory of ours alive."""
    text = f"""{OPEN}
import subprocess
LIST = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
command = [sys.executable, "-I", "-S", "-c", LIST]
before = subprocess.run(command, close_fds=False, capture_output=True, text=True).stdout
engine = TheusEngine(workers=2)
engine.heavy.put("x", np.arange(1000.0))
building = engine.heavy.alloc("y", 1000)
engine.submit(pow, 2, 3).result()
engine.run(np.ones, 300_000)
after = subprocess.run(command, close_fds=False, capture_output=True, text=True).stdout
print(after == before, flush=True)
print(waited(os.posix_spawn(sys.executable, command, os.environ)))
print(engine.run(subprocess.run, command, close_fds=False, capture_output=True).stdout.decode())
"""
    ended = run_text(text, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    same, spawned, code, in_worker, _ = ended.out.splitlines()
    assert (same, code) == ("True", "0")
    # 0 to 2, and the one that lists the directory.
    assert spawned == in_worker == "[0, 1, 2, 3]"
