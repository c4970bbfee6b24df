"""What every test is judged by sees the processes that hang elsewhere in the tree than below it."""

from __future__ import annotations

import contextlib
import inspect
import mmap
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping

import pytest

import leaks
import this_run
from proc_files import contents
from processes import descendants

AS_THIS_RUN: Mapping[str, str] = os.environ
# Another run beside this one, started from the same shell.
OF_ANOTHER_RUN = {**os.environ, this_run.MARK: "another"}
AS_THIS_PROCESS = dict(
    item.split("=", 1)
    for item in os.fsdecode(contents("/proc/self/environ")).split("\0")
    if "=" in item
)


def leave_an_orphan(tell: int) -> None:
    """Fork twice. The grandchild maps a memory file, tells its pid, and stays until it is killed,
    or for a while."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        signal.alarm(300)
        file = os.memfd_create("left")
        os.ftruncate(file, mmap.PAGESIZE)
        _kept = mmap.mmap(file, mmap.PAGESIZE)
        os.write(tell, b"%d\n" % os.getpid())
        signal.pause()
    os._exit(0)


def forked(tell: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        leave_an_orphan(tell)


def a_program(environment: Mapping[str, str]) -> Callable[[int], None]:
    def start(tell: int) -> None:
        text = f"import mmap, os, signal\n{inspect.getsource(leave_an_orphan)}\n"
        command = [sys.executable, "-c", f"{text}leave_an_orphan({tell})"]
        subprocess.run(command, env=environment, pass_fds=[tell], check=True)

    return start


@contextlib.contextmanager
def orphan(leave: Callable[[int], None]) -> Iterator[int]:
    told, tell = os.pipe()
    with os.fdopen(told) as report:
        leave(tell)
        os.close(tell)
        pid = int(report.readline())
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "leave", [forked, a_program(AS_THIS_RUN)], ids=["forked", "left by a program"]
)
def test_an_orphan_is_seen_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, leave: Callable[[int], None]
) -> None:
    before = leaks.holdings()
    with orphan(leave) as pid:
        assert pid not in descendants(os.getpid())
        with monkeypatch.context() as patched:
            patched.setattr(leaks, "PATIENCE", 0.0)
            found = leaks.left_over(before)
        assert "memfd mappings" in found
        assert f"processes {pid} " in found
    assert leaks.left_over(before) == ""


@pytest.mark.parametrize(
    "environment",
    [OF_ANOTHER_RUN, AS_THIS_PROCESS],
    ids=["another run's", "with the environment of this"],
)
def test_processes_of_others_are_not_ours(environment: Mapping[str, str]) -> None:
    before = leaks.holdings()
    with orphan(a_program(environment)):
        assert leaks.left_over(before) == ""
