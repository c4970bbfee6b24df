"""What ``engine.stats()`` says."""

from __future__ import annotations

import json
import os
import resource
from typing import Any

from ._core import core
from .session import Session

__all__ = ["stats_of"]


def stats_of(session: Session, collisions: list[str]) -> dict[str, Any]:
    """The library's own account, and what only Python knows."""
    stats: dict[str, Any] = json.loads(core().stats(session.engine))
    stats["collisions"] = collisions
    threads = session.worker_threads
    if threads is not None:  # the workers are threads of this process
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        state = "busy" if threads.running else "idle"
        stats["workers"] = [
            {"index": index, "pid": os.getpid(), "state": state, "tasks": 0, "rss_bytes": rss}
            for index in range(threads.limit)
        ]
        stats["tasks"] = {
            "queued": threads.queued,
            "running": threads.running,
            "done": threads.done,
            "failed": threads.failed,
        }
    return stats
