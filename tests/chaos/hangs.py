"""What there is to know about a host that does not come to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import journal
import processes

_TELLS = ("cmdline", "wchan", "syscall", "stack", "status")


class Hang(Exception):
    """Something was waited for and did not come; the text says all that is known."""


def describe(host: int, directory: Path) -> str:
    """Stacks of the host's Python threads, the state of its processes, the tasks without an end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(host, signal.SIGUSR1)  # faulthandler prints the stacks, host.py
        time.sleep(1.0)
    printed = (directory / "printed").read_text(errors="replace")
    return "\n".join([printed, *_processes(host), *_tasks(directory / "journal")])


def _processes(host: int) -> Iterator[str]:
    for pid in processes.in_session(host):
        yield f"--- process {pid}, state {processes.state(pid)}"
        for tell in _TELLS:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/{tell}").read_bytes().replace(b"\0", b" ")
                yield f"{tell}: {text.decode(errors='replace')}"


def _tasks(path: Path) -> Iterator[str]:
    facts = journal.read(path)
    ended = {fact["task"] for fact in facts if fact["what"] == "end"}
    for fact in facts:
        if fact["what"] in ("order", "begin") and fact["task"] not in ended:
            yield str(fact)
