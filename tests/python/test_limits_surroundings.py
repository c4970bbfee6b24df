"""Surroundings that lack what a usual machine has: it works, or an error says what is needed.

Some need root, for a private view of the file system (`unshare --mount`).
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from programs import Ended, needs_numpy_in_a_removed_directory, run_text, started

WORK = """
import asyncio, os, sys
import numpy as np
from theus import TheusEngine, TheusError

def total(ctx):
    return float(ctx.heavy["x"].sum())

def typical_work():
    with TheusEngine(workers=2) as engine:
        x = engine.heavy.alloc("x", (500_000, 8))
        x[:] = 0.5
        x.publish()
        futures = [engine.submit(np.ones, n * 1000) for n in range(20)]
        return (
            engine.run(total),
            asyncio.run(engine.execute(total)),
            sum(engine.map(pow, range(100), [2] * 100)),
            float(sum(f.result().sum() for f in futures)),
        )
"""
RESULT = "(2000000.0, 2000000.0, 328350, 190000.0)"


def shell(commands: str) -> list[str]:
    """A prefix that runs commands and then becomes the program."""
    return ["sh", "-euc", f'{commands}\nexec "$@"', "sh"]


def can_unshare() -> bool:
    return os.geteuid() == 0 and shutil.which("unshare") is not None


def mounts(commands: str) -> list[str]:
    """The same, in a private view of the file system."""
    return ["unshare", "--mount", "--propagation", "private", *shell(commands)]


needs_mounts = pytest.mark.skipif(
    not can_unshare(), reason="a private view of the file system takes root and unshare"
)

# A directory of devices without shm.
DEV_WITHOUT_SHM = """
mkdir dev
mount -t tmpfs none dev
for device in null zero random urandom; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mount --rbind dev /dev
test ! -e /dev/shm
"""

ODD_PLACES = {
    "no home, hardly an environment": ["env", "-i", f"PATH={os.environ['PATH']}"],
    "a small stack": shell("ulimit -s 256"),
    "an endless stack": shell("ulimit -s unlimited"),
    "few descriptors": shell("ulimit -n 64"),
    "no core files": shell("ulimit -c 0"),
}
ODD_MOUNTS = {
    "no /dev/shm": DEV_WITHOUT_SHM,
    "a /dev/shm of 1 MiB": "mount -t tmpfs -o size=1m none /dev/shm",
    "a /dev/shm that is read-only": "mount -t tmpfs -o ro none /dev/shm",
    "a file system that is read-only": "mount -o remount,bind,ro / 2>/dev/null ||"
    ' { mount --bind "$PWD" "$PWD"; mount -o remount,bind,ro "$PWD"; }; cd "$PWD"',
}


@pytest.mark.parametrize("place", ODD_PLACES)
def test_typical_work_is_done_all_the_same(tmp_path: Path, place: str) -> None:
    ended = run_text(f"{WORK}\nprint(typical_work())", cwd=tmp_path, prefix=ODD_PLACES[place])
    assert ended == Ended(0, RESULT + "\n", "")


@needs_numpy_in_a_removed_directory
def test_typical_work_is_done_in_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    prefix = shell("mkdir gone; cd gone; rmdir ../gone")
    ended = run_text(f"{WORK}\nprint(typical_work())", cwd=tmp_path, prefix=prefix)
    assert ended == Ended(0, RESULT + "\n", "")


@needs_mounts
@pytest.mark.parametrize("place", ODD_MOUNTS)
def test_typical_work_is_done_on_odd_mounts(tmp_path: Path, place: str) -> None:
    prefix = mounts(ODD_MOUNTS[place])
    ended = run_text(f"{WORK}\nprint(typical_work())", "-B", cwd=tmp_path, prefix=prefix)
    assert ended == Ended(0, RESULT + "\n", "")


@needs_mounts
def test_without_proc_an_error_says_so(tmp_path: Path) -> None:
    text = f"""{WORK}
try:
    typical_work()
except TheusError as failure:
    print(failure)
"""
    ended = run_text(text, cwd=tmp_path, prefix=mounts("mount -t tmpfs none /proc"))
    assert (ended.code, ended.err) == (0, "")
    assert "/proc" in ended.out
    assert "mount" in ended.out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams(tmp_path: Path, closed: str) -> None:
    """As daemons start. Nothing of ours takes their numbers: whatever anybody prints would be
    written into it."""
    text = f"""{WORK}
def streams():
    return [os.readlink(f"/proc/self/fd/{{fd}}") for fd in (0, 1, 2)]

engine = TheusEngine(workers=1)
array = engine.heavy.put("x", np.arange(1000.0))
in_host, in_worker = streams(), engine.run(streams)
for fd in (1, 2):
    os.write(fd, b"printed")
    engine.run(os.write, fd, b"printed")
whole = array.tolist() == list(range(1000)) == engine.run(lambda ctx: ctx.heavy["x"].tolist())
open("result", "w").write(f"{{typical_work()}} {{whole}}\\n{{in_host}}\\n{{in_worker}}")
"""
    with started(["-c", text], cwd=tmp_path, prefix=shell(f'exec {closed} "$@"')) as program:
        assert program.end().code == 0
    result, in_host, in_worker = (tmp_path / "result").read_text().splitlines()
    assert result == f"{RESULT} True"
    for place, number in (("<&-", 0), (">&-", 1), ("2>&-", 2)):
        if place in closed.split():
            assert eval(in_host)[number] == eval(in_worker)[number] == "/dev/null"


# ---- limits that are in the way ------------------------------------------------------------------


def refusal(
    tmp_path: Path, limit: str, *, text: str = "typical_work()", warns: bool = False
) -> str:
    """What the error says under a limit of the shell; a warning may come before it."""
    program = f"""{WORK}
try:
    {text}
except (TheusError, MemoryError, OSError) as failure:
    print(type(failure).__name__, failure)
"""
    ended = run_text(program, cwd=tmp_path, prefix=shell(limit))
    assert ended.code == 0
    assert warns or not ended.err
    return ended.out


def test_a_limit_of_file_sizes(tmp_path: Path) -> None:
    """Shared memory is a file to the kernel, which would send a signal."""
    said = refusal(tmp_path, "ulimit -f 2048")
    assert "file size" in said
    assert "ulimit -f" in said


def test_hardly_any_descriptors(tmp_path: Path) -> None:
    """Which of its calls is the first to be refused depends on what the program has open."""
    said = refusal(tmp_path, "ulimit -n 16", warns=True)
    assert said.startswith("TheusError ")
    assert "too many open files" in said.lower()
    assert "ulimit -n" in said


@pytest.mark.parametrize("left", range(8))
def test_descriptors_run_out_while_the_library_starts(tmp_path: Path, left: int) -> None:
    """An error, also where the Go runtime would end the process: it needs some for itself."""
    text = f"""
    import theus.heavy, theus.session  # numpy comes, too: its files are closed again
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        for fd in taken[:{left}]:
            os.close(fd)
    try:
        TheusEngine(workers=1).run(pow, 2, 3)
    finally:
        for fd in taken[{left}:]:
            os.close(fd)
"""
    said = refusal(tmp_path, "ulimit -n 64", text=text.strip(), warns=True)
    assert re.match("(TheusError|OSError) ", said)
    assert re.search("(?i)too many open files|out of descriptors", said)


def test_descriptors_run_out_while_it_is_used(tmp_path: Path) -> None:
    text = """
    engine = TheusEngine(workers=1)
    engine.run(pow, 2, 3)
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    try:
        engine.heavy.alloc("x", 1 << 20, np.uint8)
    finally:
        for fd in taken:
            os.close(fd)
        assert engine.run(pow, 2, 3) == 8
        assert engine.heavy.put("x", np.ones(1 << 20, np.uint8)).sum() == 1 << 20
"""
    said = refusal(tmp_path, "ulimit -n 256", text=text.strip())
    assert said.startswith("TheusError ")
    assert "out of descriptors, the limit is 256" in said
    assert "ulimit -n" in said


def test_a_limit_of_address_space_that_arrays_reach(tmp_path: Path) -> None:
    """The library is loaded, then there is no room for an array: an error, not an end."""
    text = """
    import resource
    engine = TheusEngine(workers=1)
    engine.run(pow, 2, 3)
    size = int(open("/proc/self/statm").read().split()[0]) * 4096
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size + (300 << 20), hard))
    try:
        engine.heavy.alloc("x", 400 << 20, np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        assert engine.run(pow, 2, 3) == 8
        assert engine.stats()["memory"]["in_use"] == 0
"""
    said = refusal(tmp_path, ":", text=text.strip())
    assert "address space" in said
    assert "ulimit -v" in said


def test_threads_run_out_while_it_is_used(tmp_path: Path) -> None:
    """Go ends a process that is refused a thread. It has as many as it needs before that."""
    text = f"""{WORK}
import ctypes, resource, threading
engine = TheusEngine(workers=2)
engine.run(pow, 2, 3)
if os.geteuid() == 0:  # whom the limit does not concern
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # /proc/self stays readable
together, results = threading.Barrier(17), []

def use(number):
    together.wait()
    for value in range(10):
        array = engine.heavy.alloc(f"x{{number}}", 16 << 20, np.uint8)
        array[0] = value
        array.publish()
        results.append(engine.run(lambda ctx, n: int(ctx.heavy[f"x{{n}}"][0]), number) == value)

threads = [threading.Thread(target=use, args=(number,)) for number in range(16)]
for thread in threads:
    thread.start()
resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
try:
    threading.Thread(target=print).start()
except RuntimeError as refused:
    print(refused)
together.wait()
for thread in threads:
    thread.join()
print(len(results), all(results))
"""
    ended = run_text(text, cwd=tmp_path)
    assert ended == Ended(0, "can't start new thread\n160 True\n", "")


def test_signals_of_limits_do_not_end_tasks(tmp_path: Path) -> None:
    """A task that writes too large a file gets OSError, as any Python program does."""
    text = f"""{WORK}
with TheusEngine(workers=1) as engine:
    def write():
        with open("large", "wb") as file:
            file.write(bytes(4 << 20))
    try:
        engine.run(write)
    except OSError as failure:
        print(failure.errno, engine.run(pow, 2, 3))
"""
    ended = run_text(text, cwd=tmp_path, prefix=shell("ulimit -f 1024"))
    assert ended == Ended(0, "27 8\n", "")
