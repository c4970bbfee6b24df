"""Sandboxes that refuse system calls (seccomp): it works without, or an error names the call."""

from __future__ import annotations

import errno
import platform
from pathlib import Path

import pytest

from programs import Ended, run_text
from sandbox import F_ADD_SEALS, F_SETLEASE, NUMBERS, Refused, refusing
from test_limits_surroundings import RESULT, WORK

pytestmark = pytest.mark.skipif(
    platform.machine() not in NUMBERS, reason="the numbers of its system calls are not known here"
)

# An output of a task as well, which the host takes over from the worker that wrote it.
PROGRAM = f"""{WORK}
def give(ctx):
    out = ctx.heavy.alloc("y", 1 << 18)
    out[:] = 1
    return out

try:
    print(typical_work())
    with TheusEngine(workers=1) as engine:
        print(engine.run(give).sum())
except TheusError as failure:
    print(failure)
except OSError as failure:
    print("OSError:", failure)
"""

SPARED = {
    "semaphores, which multiprocessing needs": Refused("semget", errno.ENOSYS),
    "shared memory of System V": Refused("shmget", errno.ENOSYS),
    "memfd_create": Refused("memfd_create", errno.ENOSYS),
    "memfd_create, by a profile": Refused("memfd_create", errno.EPERM),
    "leases": Refused("fcntl", errno.EINVAL, 1, F_SETLEASE),
    "leases, by a profile": Refused("fcntl", errno.EACCES, 1, F_SETLEASE),
    "moving maps": Refused("mremap", errno.EINVAL),
    "advice about memory": Refused("madvise", errno.EINVAL),
    "clone3, as old profiles of containers do": Refused("clone3", errno.ENOSYS),
}
NEEDED = {
    "pidfd_open": (Refused("pidfd_open", errno.ENOSYS), ("pidfd_open", "Linux 5.4")),
    "seals": (Refused("fcntl", errno.EPERM, 1, F_ADD_SEALS), ("F_ADD_SEALS", "memfd seals")),
    "fallocate": (Refused("fallocate", errno.EOPNOTSUPP), ("fallocate", "sandbox")),
}


@pytest.mark.parametrize("what", SPARED)
def test_it_works_without(tmp_path: Path, what: str) -> None:
    ended = run_text(PROGRAM, cwd=tmp_path, prefix=refusing(SPARED[what]))
    assert ended == Ended(0, f"{RESULT}\n262144.0\n", "")


@pytest.mark.parametrize("what", NEEDED)
def test_an_error_names_what_it_needs(tmp_path: Path, what: str) -> None:
    refused, words = NEEDED[what]
    ended = run_text(PROGRAM, cwd=tmp_path, prefix=refusing(refused))
    assert ended.code == 0
    for word in words:
        assert word in ended.out
