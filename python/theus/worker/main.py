"""The life of a worker process."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import identity
from ..context import WorkerInfo
from . import blas, frames, preload, process, seeding, wire
from .link import Link
from .status import StatusPage
from .tasks import Runner

_WARNING = 30


def serve(
    connection: socket.socket,
    page_fd: int,
    *,
    worker: int,
    index: int,
    config: dict[str, Any],
    problems: Sequence[str] = (),
) -> NoReturn:
    """Be a worker until the host is gone or says so.

    Args:
        connection: the socket to the host.
        page_fd: the status page, taken over.
        worker: this worker's number, never used twice.
        index: its place, 0 … workers-1.
        config: what the zygote was told.
        problems: what the host shall be warned of.
    """
    environment: dict[str, str] | None = config.get("env") or None
    threads = int(config.get("threads") or 1)
    seed = int(config.get("seed") or 0)
    process.prefer_as_victim()
    preload.set_environment(environment, threads)
    seeding.reseed(seed, worker)
    wanted = blas.wanted(environment, threads)
    if wanted > 1:  # else they are as they were loaded
        blas.set_threads(wanted)
    _adopt_owner(int(config.get("parent") or 0))

    page = StatusPage(page_fd)
    page.report_faults()
    link = Link(frames.Channel(connection, page.rings()), worker, page.cut_off)
    # A child that user code forks holds the sockets open, and the host would not see our end.
    os.register_at_fork(after_in_child=link.abandon)
    os.register_at_fork(after_in_child=page.abandon)
    runner = Runner(link, page, WorkerInfo(index, os.getpid()), seed)
    link.ready()
    for problem in problems:
        fields = wire.u32(_WARNING) + wire.text("theus") + wire.text(problem)
        link.send(frames.LOG, 0, fields)
    while True:
        task = link.next_task()
        if task is None:
            process.flush_output()
            process.exit_now(0)
        runner.run(task)
        del task  # its arrays may be the last views of what was retired
        process.ask_for_death_signal()


def _adopt_owner(parent: int) -> None:
    """Resolve references of this host."""
    try:
        identity.adopt(identity.token_of(parent))
    except OSError:
        process.exit_now(0)  # the host is gone
