"""What a process, and all that it started, holds that a test must not leave behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import this_run
from polling import PATIENCE
from proc_files import text
from processes import descendants, descriptors, doings
from shared_pages import most_unaccounted_bytes, unaccounted_bytes

# The counter is the machine's: pages of /dev/shm and of System V segments come and go there too.
SHMEM_NOISE = 32 << 20
# Go's runtime keeps these open, once for all, from some moment after it was loaded.
_OF_GO = ("/cpu.cfs_quota_us", "/cpu.cfs_period_us", "/cpu.max")


class Holdings(NamedTuple):
    """Descriptors, shared maps, processes, threads and shared pages at one moment."""

    descriptors: frozenset[str]
    mappings: int
    processes: frozenset[int]
    threads: frozenset[str]
    shmem: int


def holdings() -> Holdings:
    """What there is now, to be compared with later."""
    return _now(most_unaccounted_bytes)


def _now(shared_pages: Callable[[], int]) -> Holdings:
    # Descendants that are dead and not waited for, or do not have this run's environment; and what
    # is a descendant no more, since its parent died before it.
    processes = this_run.started().union(descendants(os.getpid()))
    return Holdings(
        descriptors=_descriptors(),
        mappings=_mappings("self") + sum(_mappings(str(pid)) for pid in processes),
        processes=processes,
        threads=frozenset(t.name for t in threading.enumerate() if t.name.startswith("theus")),
        shmem=shared_pages(),
    )


def left_over(before: Holdings) -> str:
    """What is there now and was not before, after waiting for it to go; empty for nothing."""
    deadline = time.monotonic() + PATIENCE
    while True:
        # Asked before the look: on a machine that stands still for seconds, the first look, at
        # what another program is just giving back, would be the only one.
        last = time.monotonic() > deadline
        gc.collect()
        difference = _difference(before, _now(unaccounted_bytes))
        if not difference or last:
            return difference
        threading.Event().wait(0.01)  # poll; what is awaited sends no signal


def _difference(before: Holdings, now: Holdings) -> str:
    found = []
    if now.descriptors - before.descriptors:
        found.append(f"descriptors {sorted(now.descriptors - before.descriptors)}")
    if now.mappings > before.mappings:
        found.append(f"{now.mappings - before.mappings} memfd mappings")
    if now.processes - before.processes:
        found.append(f"processes {doings(sorted(now.processes - before.processes))}")
    if now.threads - before.threads:
        found.append(f"threads {sorted(now.threads - before.threads)}")
    if now.shmem > before.shmem + SHMEM_NOISE:
        found.append(f"{now.shmem - before.shmem} bytes of shared pages")
    return "; ".join(found)


def _descriptors() -> frozenset[str]:
    return frozenset(name for name in descriptors() if not name.endswith(_OF_GO))


def _mappings(pid: str) -> int:
    return sum(1 for line in text(f"/proc/{pid}/maps").splitlines() if "memfd:" in line)
