"""The ways in which the processes of the crash matrix end, or stop. Each is the real thing."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXIT_CODE = 3

# A worker that runs out of memory may take so much and no more, should nobody stop it.
MOST = 512 << 20


def commit(how: str, log: str, group: str) -> None:
    """Note that the place was reached, and do it.

    Args:
        how: one of `FAULTS`.
        log: the file that counts; see `committed`.
        group: directory of the cgroup to run out of memory in.
    """
    with Path(log).open("a") as file:
        file.write(f"{how}\t{os.getpid()}\n")
    if how == "OOM kill":
        run_out_of_memory(group)
    FAULTS[how]()


def committed(log: Path) -> list[tuple[str, int]]:
    """What was done so far: (how, pid) of each."""
    if not log.exists():
        return []
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [(how, int(pid)) for how, pid in lines]


class CommitsWhenPickled:
    """Does it when it is pickled."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        commit(*self.arguments)
        return str, ()


class CommitsWhenLoaded:
    """Does it when its pickle is loaded."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return commit, self.arguments


def raise_error() -> None:
    raise ValueError("on purpose")


def leave() -> None:
    sys.exit(EXIT_CODE)


def leave_at_once() -> None:
    os._exit(EXIT_CODE)


def write_to_nowhere() -> None:
    ctypes.memset(0, 1, 1)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def overflow_the_stack() -> None:
    """Use up the C stack, which is small from here on, by calls through C."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    # 3.12 ends recursion through C after some 1500 calls: they must not fit.
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 18, hard))
    sys.setrecursionlimit(1 << 30)

    @ctypes.CFUNCTYPE(None)
    def deeper() -> None:
        deeper()

    deeper()


def run_out_of_memory(group: str) -> None:
    """Join a cgroup and take memory until the kernel ends this process."""
    if not group:
        raise AssertionError("there is no cgroup to run out of memory in")
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
    hoard = []
    while len(hoard) < MOST >> 20:
        hoard.append(bytearray(b"x") * (1 << 20))
    raise AssertionError(f"{MOST} bytes were there to be had")


FAULTS: dict[str, Callable[[], None]] = {
    "exception": raise_error,
    "sys.exit": leave,
    "os._exit": leave_at_once,
    "SIGSEGV": write_to_nowhere,
    "SIGKILL": kill,
    "SIGSTOP": stop,
    "stack overflow": overflow_the_stack,
    "OOM kill": lambda: None,  # done in `commit`, which knows the cgroup
}
