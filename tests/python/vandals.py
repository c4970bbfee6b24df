"""Tasks that break the process that runs them, as careless code does and some libraries do."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

# ---- what a worker survives ----------------------------------------------------------------------


def change_directory() -> None:
    os.chdir("/")
    os.umask(0o777)


def forget_the_environment() -> None:
    os.environ.clear()


def limit_resources() -> None:
    for limit, soft in (
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 1),
    ):
        resource.setrlimit(limit, (soft, resource.getrlimit(limit)[1]))


def take_all_signals() -> None:
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def leave_the_session() -> None:
    os.setsid()


def lead_a_group() -> None:
    with contextlib.suppress(PermissionError):  # a session's leader has one already
        os.setpgrp()


def live_on_without_parent() -> None:
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)


def break_output() -> None:
    class Broken:
        def write(self, _: str) -> int:
            raise OSError("no")

        def flush(self) -> None:
            raise SystemExit("no")

    sys.stdout = sys.stderr = Broken()  # type: ignore[assignment]


def have_no_output() -> None:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


def close_standard_descriptors() -> None:
    for fd in range(3):
        os.close(fd)


def forget_the_package() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "theus"]:
        del sys.modules[name]


def forget_its_root() -> None:
    sys.modules.pop("theus", None)


def replace_system_calls() -> None:
    def no(*_: Any, **__: Any) -> Any:
        raise RuntimeError("replaced")

    os.fork = os._exit = os.kill = os.wait = no  # type: ignore[assignment]


def stop_collecting() -> None:
    gc.disable()
    gc.freeze()


def recurse_deeper() -> None:
    sys.setrecursionlimit(1 << 20)


def trace_everything() -> None:
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)


def silence_logging() -> None:
    logging.disable(logging.CRITICAL)


def leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


def leave_a_busy_thread() -> None:
    def spin() -> None:
        while True:
            time.sleep(0.001)

    threading.Thread(target=spin).start()


SURVIVED: list[Callable[[], None]] = [
    change_directory,
    forget_the_environment,
    limit_resources,
    take_all_signals,
    leave_the_session,
    lead_a_group,
    live_on_without_parent,
    break_output,
    have_no_output,
    forget_its_root,
    forget_the_package,
    replace_system_calls,
    stop_collecting,
    recurse_deeper,
    trace_everything,
    silence_logging,
    leave_a_thread,
    leave_a_busy_thread,
    close_standard_descriptors,
]


def fork_and_leave(natively: bool) -> int:
    """A child that outlives its worker; gives its pid. Natively: Python does not know of it."""
    pid = int(ctypes.CDLL(None).fork()) if natively else os.fork()
    if not pid:
        while True:
            signal.pause()
    return pid


# ---- what costs a worker its life ----------------------------------------------------------------


def _sockets() -> list[int]:
    found = []
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
    return found


def close_descriptors() -> None:
    os.closerange(0, 64)


def close_descriptors_and_wait() -> None:
    os.closerange(0, 64)
    while True:
        signal.pause()


def replace_the_socket() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in _sockets():
        os.dup2(null, fd)


def replace_the_socket_by_another() -> None:
    ours, theirs = socket.socketpair()
    for fd in _sockets():
        if fd not in (ours.fileno(), theirs.fileno()):
            os.dup2(ours.fileno(), fd)


def send_text() -> None:
    for fd in _sockets():
        os.write(fd, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def send_zeros() -> None:
    for fd in _sockets():
        os.write(fd, bytes(64))


def send_torn_result() -> None:
    """A whole RESULT for a task that does not exist, then one whose fields end too early."""
    frame = b"\x08\0\0\0" + b"\x17\0" + b"\0\0" + bytes(8) + bytes(8)
    for fd in _sockets():
        os.write(fd, frame)


CUT_OFF: list[Callable[[], None]] = [
    close_descriptors,
    close_descriptors_and_wait,
    replace_the_socket,
    replace_the_socket_by_another,
]
BROKE: list[Callable[[], None]] = [send_text, send_zeros, send_torn_result]
