"""The crash matrix: where a process of the pool is hit, and how, and what the caller gets.

In every cell exactly that one task is lost, or none, and the pool serves the next one with as many
workers as before. `PLACES` says where the faults come from (crash_places.py), `crash_faults.FAULTS`
how they are done, `MATRIX` what is to come of it. docs/reliability.md shows this table.
"""

from __future__ import annotations

import re
import signal
from typing import NamedTuple

from crash_faults import FAULTS

PLACES = {
    "start": "the zygote imports what is to be preloaded",
    "handshake": "a worker was forked and has not said a word",
    "unpickle": "an argument is being loaded in the worker",
    "running": "the function runs",
    "pickling": "the result is being pickled",
    "replying": "half of the answer is written",
    "idle": "the worker waits for its next task",
    "fetching": "an array's descriptor is on its way to the worker",
    "retiring": "the worker is to confirm that it has let go of an array",
}


class End(NamedTuple):
    """What comes of a fault.

    Attributes:
        error: name of the exception that the task ends with; empty: it ends well.
        message: pattern of the whole text. ``{worker}`` and ``{task}`` stand for who and what.
        shown: what the documentation says, where that is more than the error's name.
        worker_lives: whether the same process serves the next task.
        signal, exit_code, oom: attributes of WorkerCrashed.
    """

    error: str
    message: str = ""
    shown: str = ""
    worker_lives: bool = False
    signal: int = 0
    exit_code: int | None = None
    oom: bool = False

    @property
    def text(self) -> str:
        """The cell as the documentation shows it."""
        if self.shown or self.error != "WorkerCrashed":
            return self.shown or f"`{self.error}`"
        if self.oom:
            return "`WorkerCrashed`, out of memory"
        how = signal.Signals(self.signal).name if self.signal else f"exit code {self.exit_code}"
        return f"`WorkerCrashed`, {how}"


NATIVE = "; native code did that, or ran out of stack. Python was in {calls}"
SHARED_ARRAY = (
    '; it had read the shared array(s) ["{key}"], which are read-only: if native code wrote to '
    'one, give it a private writable view, ctx.heavy.cow("{key}"). Python was in {calls}'
)
SOMEBODY = (
    "; somebody sent that (kill -9, or what limits this job): the kernel's count says that memory "
    "had not run out"
)
# Where the kernel does not count, or its count cannot be read.
ANYBODY = (
    "; SIGKILL comes from kill -9 or from the kernel when memory runs out (see dmesg, or "
    "memory.events of the cgroup)"
)
TAKE_LESS = "; have a task take less memory, run fewer at once (workers=), or raise the limit"
OUT_OF_MEMORY = (
    "was killed by the kernel because memory ran out: {cgroup} has reached its limit, "
    "{limit_file} = {limit} bytes ({limit_mib} MiB)"
)


def _crashed(reason: str, advice: str = "", **attributes: int | bool) -> End:
    text = f"worker {{worker}} {reason} while it ran {{task}}{advice}"
    return End("WorkerCrashed", text, **attributes)  # type: ignore[arg-type]


def _deaths(advice: str = NATIVE) -> dict[str, End]:
    return {
        "os._exit": _crashed("exited with status 3", exit_code=3),
        "SIGSEGV": _crashed("was killed by SIGSEGV", advice, signal=11),
        "SIGKILL": _crashed("was killed by SIGKILL", "{advice}", signal=9),
        "SIGSTOP": End("CancelledError", "", "waits until `cancel()` or `timeout=` ends it"),
        "stack overflow": _crashed("was killed by SIGSEGV", advice, signal=11),
        "OOM kill": _crashed(OUT_OF_MEMORY, TAKE_LESS, signal=9, oom=True),
    }


def _raises(error: str, message: str, **more: str) -> End:
    return End(error, message, worker_lives=True, **more)  # type: ignore[arg-type]


_LEFT = _raises(
    "RemoteError",
    "SystemExit: 3 (raised in a worker, and not to be had here as itself)",
    shown="`RemoteError` of SystemExit",
)
_RAISED = _raises("ValueError", "on purpose")
_EXITED = _crashed("exited with status 1", exit_code=1)


def _refused(why: str) -> End:
    return _raises(
        "TypeError",
        "the result of crash_places.{task} cannot be sent to the host: a "
        f"crash_faults.CommitsWhenPickled cannot be pickled ({why}). Return plain data: numbers, "
        "text, arrays, and lists or dicts of them.",
    )


def _no_workers(cause: str) -> End:
    shown = "`TheusError`: cannot be started"
    return End("TheusError", f"worker processes cannot be started: {cause}", shown)


def _no_zygote(ended: str) -> End:
    command = "({python} -I {zygote}), 3 times in a row; what it printed is on stderr"
    return _no_workers(f"the zygote {ended} {command}")


def _no_handshake(ended: str) -> End:
    return _no_workers(
        f"{{many}} workers in a row died before they were ready; the last one {ended}"
    )


_SERVED = End("", shown="none is lost")
_WARNED = End("", shown="none is lost; a warning says what cannot be imported")
_REPLACED = End("", shown="none is lost; it is replaced after 5 s")
_WAITS = End(
    "TaskTimeout",
    "{task} ran longer than its timeout of 2s; its worker {pid} was ended and replaced",
)

MATRIX: dict[str, dict[str, End]] = {
    "start": {
        "exception": _WARNED,
        "sys.exit": _WARNED,
        "os._exit": _no_zygote("exited with status 3"),
        "SIGSEGV": _no_zygote("was killed by SIGSEGV"),
        "SIGKILL": _no_zygote("was killed by SIGKILL"),
        "SIGSTOP": _REPLACED,
        "stack overflow": _no_zygote("was killed by SIGSEGV"),
        "OOM kill": _no_zygote("was killed by SIGKILL"),
    },
    "handshake": {
        "exception": _no_handshake("exited with status 1"),
        "sys.exit": _no_handshake("exited with status 1"),
        "os._exit": _no_handshake("exited with status 3"),
        "SIGSEGV": _no_handshake("was killed by SIGSEGV"),
        "SIGKILL": _no_handshake("was killed by SIGKILL"),
        "SIGSTOP": _REPLACED,
        "stack overflow": _no_handshake("was killed by SIGSEGV"),
        "OOM kill": _no_handshake("was killed by SIGKILL"),
    },
    "unpickle": {"exception": _RAISED, "sys.exit": _LEFT, **_deaths()},
    "running": {"exception": _RAISED, "sys.exit": _LEFT, **_deaths()},
    "pickling": {
        "exception": _refused("ValueError: on purpose"),
        "sys.exit": _refused("SystemExit: 3"),
        **_deaths(),
    },
    "replying": {"exception": _EXITED, "sys.exit": _EXITED, **_deaths()},
    "idle": {**dict.fromkeys(FAULTS, _SERVED), "SIGSTOP": _WAITS},
    "fetching": {"exception": _RAISED, "sys.exit": _LEFT, **_deaths(SHARED_ARRAY)},
    "retiring": {"exception": _RAISED, "sys.exit": _LEFT, **_deaths()},
}


_CALL = r"\S+ \(\S+:\d+\)"


def pattern(text: str, **known: object) -> str:
    """The pattern that a message has to match as a whole."""
    parts = {
        "worker": r"\d+ \(pid \d+\)",
        "pid": r"\(pid \d+\)",
        "many": r"1\d",
        "python": r"\S+",
        "zygote": r"\S+zygote\.py",
        "calls": rf"{_CALL}(, called from {_CALL})*",
        "advice": f"({re.escape(SOMEBODY)}|{re.escape(ANYBODY)})",
        **{name: re.escape(str(value)) for name, value in known.items()},
    }
    return re.sub(r"\\\{(\w+)\\\}", lambda found: parts[found[1]], re.escape(text)) + r"\Z"


def markdown() -> str:
    """The table as the documentation shows it: one line for each place."""
    lines = [
        "| where \\ how | " + " | ".join(FAULTS) + " |",
        "|---" * (len(FAULTS) + 1) + "|",
    ]
    for place, cells in MATRIX.items():
        lines.append(f"| **{place}** | " + " | ".join(cells[how].text for how in FAULTS) + " |")
    return "\n".join(lines) + "\n"
