"""Children that the interpreter does not know of, as C libraries fork them: the library itself
refuses them, and does so before it enters Go."""

from __future__ import annotations

import errno
import os
import platform
import shutil
from pathlib import Path

import pytest

import panicking_host
from programs import Ended, run_text
from sandbox import MADV_WIPEONFORK, NUMBERS, Refused, refusing

CLONE_NEWPID, SIGCHLD = 0x20000000, 17

needs_numbers = pytest.mark.skipif(
    platform.machine() not in NUMBERS, reason="the numbers of its system calls are not known here"
)

# Each function that returns a status is called with nothing but zeros: a forked child is refused
# before anybody looks at them. One that hung would be ended by the alarm.
PROGRAM = """
import ctypes, os, signal
from theus import TheusEngine, _core
engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
library = ctypes.CDLL(_core.core().path)
libc = ctypes.CDLL(None)
answers, here = os.pipe()
pid = {fork}
if pid == 0:
    signal.alarm(20)
    for name, arity in {functions!r}:
        status = library[name](*[ctypes.c_uint64(0)] * arity)
        os.write(here, f"{{name}} {{status}}\\n".encode())
    os.write(here, f"own pid: {{os.getpid()}}\\n".encode())
    os._exit(0)
os.close(here)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), engine.run(pow, 2, 5))
print(open(answers).read(), end="")
"""


def program(fork: str) -> str:
    functions = [(name, len(args)) for name, args in panicking_host.functions().items()]
    return PROGRAM.format(fork=fork, functions=functions)


def bare_clone(flags: int) -> str:
    return f"libc.syscall({NUMBERS[platform.machine()]['clone']}, {flags}, 0, 0, 0, 0)"


def require_refusals(ended: Ended) -> str:
    assert (ended.code, ended.err) == (0, "")
    first, *answers, last = ended.out.splitlines()
    assert first == "0 32", "the child ended, and the parent goes on"
    assert answers == [f"{name} 10" for name in panicking_host.functions()]
    return last


def test_a_child_of_the_c_librarys_fork(tmp_path: Path) -> None:
    require_refusals(run_text(program("libc.fork()"), cwd=tmp_path))


@needs_numbers
def test_the_same_where_no_page_is_wiped(tmp_path: Path) -> None:
    """Old kernels and sandboxes do not know the advice, so the C library has to tell."""
    prefix = refusing(Refused("madvise", errno.EINVAL, 2, MADV_WIPEONFORK))
    require_refusals(run_text(program("libc.fork()"), cwd=tmp_path, prefix=prefix))


@needs_numbers
def test_a_child_of_a_bare_clone(tmp_path: Path) -> None:
    require_refusals(run_text(program(bare_clone(SIGCHLD)), cwd=tmp_path))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="a pid namespace takes root"
)
@needs_numbers
def test_parent_and_child_are_both_pid_1(tmp_path: Path) -> None:
    text = f"import os\nassert os.getpid() == 1\n{program(bare_clone(CLONE_NEWPID | SIGCHLD))}"
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    assert require_refusals(run_text(text, cwd=tmp_path, prefix=prefix)) == "own pid: 1"
