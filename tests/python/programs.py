"""Whole programs as users start them, each a process and a session of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from polling import until
from processes import in_session

# So long that only a hang takes longer, also on a machine that has much else to do.
PATIENCE = 180.0

needs_numpy_in_a_removed_directory = pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason="Python 3.13.0 fails to import numpy there"
)


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


class Program:
    """A program that was started; see `started`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._read = b""  # and not yet given to anybody

    def line(self) -> str:
        """The next line that it prints; what there is of it when it has ended.

        Raises:
            AssertionError: there was none for long.
        """
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._read:
            ready, _, _ = select.select([fd], [], [], PATIENCE)
            assert ready, f"the program printed nothing for {PATIENCE} s"
            some = os.read(fd, 1 << 16)
            if not some:
                break
            self._read += some
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def end(self, source: str | None = None) -> Ended:
        """Wait for its end, and for that of everything that it started."""
        out, err = self.process.communicate(source, timeout=PATIENCE)
        self.gone()
        return Ended(self.process.returncode, self._read.decode() + out, err)

    def gone(self) -> None:
        """Wait until no process of its session is left.

        Raises:
            AssertionError: one is, after a while.
        """
        until(lambda: not in_session(self.pid), f"the processes {in_session(self.pid)} to be gone")


@contextlib.contextmanager
def started(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    source: str | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Program]:
    """A Python program that runs; killed when the block is left and it has not ended.

    Args:
        arguments: what follows ``python`` on the command line.
        cwd: its working directory.
        env: variables besides those of this process.
        source: whether something will be given to its standard input.
        prefix: a command that runs the program: what stands before ``python``.
    """
    process = subprocess.Popen(
        [*prefix, sys.executable, *arguments],
        cwd=cwd,
        env=environment(env or {}),
        stdin=subprocess.DEVNULL if source is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    program = Program(process)
    with process:
        try:
            yield program
        finally:
            if process.poll() is None:
                process.kill()
    try:
        program.gone()
    except AssertionError:
        for pid in in_session(program.pid):  # for the sake of the tests that follow
            os.kill(pid, signal.SIGKILL)
        raise


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    source: str | None = None,
    prefix: Sequence[str] = (),
) -> Ended:
    """Run a Python program to its end; nothing that it started may outlive it."""
    with started(arguments, cwd=cwd, env=env, source=source, prefix=prefix) as program:
        return program.end(source)


def run_text(
    text: str,
    *flags: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Ended:
    """Run the text of a program, from ``python -c``."""
    return run([*flags, "-c", textwrap.dedent(text)], cwd=cwd, env=env, prefix=prefix)


def printed_by(text: str, cwd: Path) -> str:
    """What the text of a program prints that ends well and complains of nothing."""
    ended = run_text(text, cwd=cwd)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    return ended.out.strip()


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process that programs shall have, and more."""
    # Jupyter's kernel, for one, behaves differently when it finds itself in a test.
    ours = ("THEUS_", "PYTHON", "PYTEST_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "THEUS_LIBRARY" or not name.startswith(ours)
    }
    return {**kept, **more}
