"""What a process sheds when it becomes a zygote or a worker, and how it dies with its parent.

Like frames.py, this file imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection

# Taken now: a task may replace it in `os`, and a child that does not end runs the zygote's loop.
exit_now = os._exit

_prctl = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1
_SIGKILL = int(signal.SIGKILL)

# Kernel out of memory: rather a worker, whose task is reported and can be retried, than the host.
_OOM_SCORE = 300


def reset_signals() -> None:
    """Set signals to what a fresh Python has, but ignore SIGINT.

    A host may ignore SIGCHLD, and then exit statuses are lost, or block signals, and exec hands
    all that down. Ctrl-C is the host's to handle: it cancels what it wants to cancel.
    """
    ignored = {signal.SIGINT, signal.SIGPIPE}
    if hasattr(signal, "SIGXFSZ"):
        ignored.add(signal.SIGXFSZ)  # as Python does: writing too large a file raises OSError
    for number in signal.valid_signals():
        # SIGKILL and SIGSTOP refuse, and so do the C library's own two.
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_descriptors(keep: Collection[int]) -> None:
    """Close every descriptor but those: what a host leaves inheritable is not ours."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):  # the one that listed the directory is closed
                os.close(int(name))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; exit if that happened already.

    The end of the parent's socket is no substitute: any child that user code forks holds a copy,
    and a busy or stopped process does not read.
    """
    ask_for_death_signal()
    if os.getppid() != parent:
        exit_now(0)


def ask_for_death_signal() -> None:
    """Have the kernel kill this process when its parent dies.

    It forgets that when the process changes its user, and a task may take it back.
    """
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def prefer_as_victim() -> None:
    """Have the kernel end this process before the host when memory runs out; best effort."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        now = int(file.read())
        file.seek(0)
        file.write(str(min(1000, max(now, 0) + _OOM_SCORE)))


def flush_output() -> None:
    """Bring out what was printed. Output that nobody takes is no reason to fail."""
    # A task may have put anything into their place, or nothing. Not with contextlib.suppress: this
    # is done after every task, and that costs 2 µs.
    for name in ("stdout", "stderr"):
        try:  # noqa: SIM105
            getattr(sys, name).flush()
        except BaseException:
            pass
