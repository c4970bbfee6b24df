"""Whose shared memory a pickled reference means.

Segment numbers are unique in the life of one host only. So a reference also carries a token of its
host, which a process of another host cannot have: machine boot, process id, and the time that
process started (process ids are used again). Workers take over the token of their host.
"""

from __future__ import annotations

import os

__all__ = ["adopt", "owner", "token_of"]

_token: str | None = None


def owner() -> str:
    """The token of the host that this process is, or works for."""
    global _token
    if _token is None:
        _token = token_of(os.getpid())
    return _token


def adopt(token: str) -> None:
    """Work for another host from now on; called by workers."""
    global _token
    _token = token


def token_of(pid: int) -> str:
    """The token of a process that is alive.

    Raises:
        OSError: there is no such process.
    """
    boot = _content("/proc/sys/kernel/random/boot_id").strip()
    # The command's name comes second, in parentheses, and may itself hold anything.
    fields = _content(f"/proc/{pid}/stat").rpartition(")")[2].split()
    started = fields[19]
    return f"{boot[:8]}-{pid}-{started}"


def _content(path: str) -> str:
    # Without pathlib, which takes 3 ms to import, in each program and each zygote.
    with open(path, errors="replace") as file:
        return file.read()
