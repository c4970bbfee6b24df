"""The process that workers are forked from. Run by zygote.py, as ``python -I zygote.py 3``.

Descriptor 3 is a socket to the host. Its first frame says how the host's Python finds modules;
until then only the standard library can be imported, so what is needed of this package before that
is loaded by its file name.

::

    CONFIG → sys.path, directory, environment → preload → ZYGOTE_READY
    then, until the host is gone:  SPAWN → fork → SPAWNED;   a worker ends → EXITED

A zygote that has threads (a preloaded module started them) must not fork: it starts each worker as
a fresh interpreter instead, ``python -I zygote.py --worker …``.
"""

from __future__ import annotations

import errno
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from . import frames, process

# What workers need of the standard library. It is imported while sys.path is the interpreter's
# own: after CONFIG a user's logging.py, say, would stand before it.
_STANDARD_MODULES = (
    *("collections.abc", "contextlib", "copyreg", "ctypes", "dataclasses", "difflib"),
    *("faulthandler", "inspect", "io", "itertools", "logging", "math", "operator"),
    *("pickle", "random", "re", "resource", "struct", "threading", "time", "types", "typing"),
    "weakref",
)

_HERE = os.path.dirname(os.path.abspath(__file__))
_SOCKET, _PAGE, _CONFIG = 3, 4, 5


def main(arguments: list[str]) -> NoReturn:
    """Be a zygote, or with ``--worker`` a worker."""
    gc.disable()  # while our own modules are imported: they leave no garbage
    for name in _STANDARD_MODULES:
        importlib.import_module(name)
    _load_beside("frames")
    _load_beside("process")
    if arguments[:1] == ["--worker"]:
        _be_worker(*map(int, arguments[1:]))
    _be_zygote(int(arguments[0]))


def _load_beside(name: str) -> None:
    """Load a module of this package by its file, under the name that it has in the package."""
    full_name = f"theus.worker.{name}"
    spec = importlib.util.spec_from_file_location(full_name, os.path.join(_HERE, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = globals()[name] = module
    spec.loader.exec_module(module)


def _be_zygote(fd: int) -> NoReturn:
    process.reset_signals()
    process.close_descriptors(keep=(0, 1, 2, fd))
    os.set_inheritable(fd, False)
    channel = frames.Channel(socket.socket(fileno=fd))
    try:
        first = None
        while first is None:
            channel.wait()
            first = channel.receive()
    except frames.ChannelClosed:
        process.exit_now(0)
    if first.kind != frames.CONFIG:
        _refuse("the first frame is not CONFIG")
    config: dict[str, Any] = json.loads(bytes(first.payload))
    if config.get("protocol") != frames.PROTOCOL:
        _refuse(
            f"the library speaks protocol {config.get('protocol')}, this package "
            f"{frames.PROTOCOL}: two versions of theus are mixed"
        )
    zygote = Zygote(channel, config)
    zygote.prepare()
    zygote.serve()


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"theus: worker processes cannot be started: {why}\n")
    sys.stderr.flush()
    process.exit_now(78)  # EX_CONFIG


def _enter(config: dict[str, Any]) -> list[str]:
    """Take over the host's module path and directory; gives warnings."""
    # -I made the interpreter ignore it, and workers shall leave no files where the host would not.
    if (config.get("env") or {}).get("PYTHONDONTWRITEBYTECODE"):
        sys.dont_write_bytecode = True
    if config.get("sys_path"):
        sys.path[:] = config["sys_path"]
    root = os.path.dirname(os.path.dirname(_HERE))
    if root not in sys.path:
        sys.path.append(root)
    directory = config.get("cwd")
    if not directory:
        return []
    try:
        os.chdir(directory)
    except OSError as error:
        os.chdir("/")
        return [f"the working directory {directory} is gone ({error.strerror}); workers run in /"]
    return []


class Zygote:
    """Forks workers and reports their ends.

    Args:
        channel: to the host.
        config: what CONFIG said.
    """

    def __init__(self, channel: frames.Channel, config: dict[str, Any]) -> None:
        self._channel = channel
        self._config = config
        self._pid = os.getpid()
        self._warnings: list[str] = []
        self._forks = True
        self._obstacle: str | None = None  # why there can be no workers
        self._workers: dict[int, tuple[int, int]] = {}  # by pidfd: (worker, pid)
        self._config_fd = -1
        self._spare = -1  # keeps a place in the table of descriptors while a worker is forked

    def prepare(self) -> None:
        """Import what workers need, and tell the host that workers can be asked for."""
        self._warnings += _enter(self._config)
        try:
            preload = self._import("preload")
            preload.set_environment(self._config.get("env") or None, None)
            self._import("main")
            self._import("signals").install()  # before user code takes what it replaces
        except Exception as error:
            self._obstacle = f"theus cannot be imported by {sys.executable}: {error!r}"
            traceback.print_exc()
        else:
            gc.freeze()  # else the first collection would look at all of it, for 5 ms
            gc.enable()
            # numpy is here already; whether it has started threads is asked like of the others.
            names = ["numpy", *(self._config.get("preload") or ())]
            self._forks = preload.preload(names, self._warnings.append)
            self._obstacle = _lacking()
        if not self._forks:
            self._config_fd = os.memfd_create("theus-config", os.MFD_CLOEXEC)
            os.write(self._config_fd, json.dumps(self._config).encode())
        hello = {
            "pid": self._pid,
            "python": sys.version,
            "mode": "fork" if self._forks else "exec",
            "warnings": self._warnings,
        }
        self._send(frames.ZYGOTE_READY, 0, json.dumps(hello).encode())
        # What is here now stays: left out of collections, its pages stay shared. What only our own
        # modules leave is not worth the 5 ms that looking for garbage takes.
        if set(self._config.get("preload") or ()) - {"numpy"}:
            gc.collect()
        gc.freeze()

    @staticmethod
    def _import(name: str) -> ModuleType:
        return importlib.import_module(f"theus.worker.{name}")

    def serve(self) -> NoReturn:
        """Fork and reap until the host is gone."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd in self._workers:
                    poll.unregister(fd)
                    self._reap(fd)
                    continue
                for pidfd in self._spawn_as_asked():
                    poll.register(pidfd, select.POLLIN)

    def _spawn_as_asked(self) -> list[int]:
        """Handle the frames that are there; gives the pidfds of new workers."""
        started: list[int] = []
        while True:
            try:
                frame = self._channel.receive()
            except frames.ChannelClosed:
                self._end()
            if frame is None:
                return started
            with frame:
                if frame.kind != frames.SPAWN:
                    raise frames.ProtocolError(f"the zygote was sent a frame of type {frame.kind}")
                pidfd = self._spawn(frame)
                if pidfd is not None:
                    started.append(pidfd)

    def _spawn(self, frame: frames.Frame) -> int | None:
        """Start one worker; gives its pidfd, or None after reporting why not."""
        index = int.from_bytes(frame.payload[:4], "little")
        try:
            if self._obstacle is not None:
                raise OSError(self._obstacle)
            connection, page = frame.fds
            if connection is None or page is None:
                raise OSError("no descriptor is left in the zygote (ulimit -n)")
            process.flush_output()  # else the child would print it again
            start = self._fork if self._forks else self._execute
            self._spare = os.dup(page)
            try:
                pid = start(frame.id, index, connection, page)
            finally:
                os.close(self._spare)
        except OSError as error:
            self._cannot_spawn(frame.id, error)
            return None
        try:
            # Nobody but this process reaps the child, so the pid cannot mean another one yet.
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # its end would go unnoticed
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._cannot_spawn(frame.id, error)
            return None
        self._workers[pidfd] = (frame.id, pid)
        self._send(frames.SPAWNED, frame.id, pid.to_bytes(4, "little"), (pidfd,))
        return pidfd

    def _cannot_spawn(self, worker: int, error: OSError) -> None:
        reason = str(error).encode()
        payload = len(reason).to_bytes(4, "little") + reason
        self._send(frames.SPAWN_FAILED, worker, payload)

    def _fork(self, worker: int, index: int, connection: int, page: int) -> int:
        with warnings.catch_warnings():
            # Python 3.12 and later warn about forking with threads; there are none.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            return pid
        try:
            process.die_with_parent(self._pid)
            self._channel.close()
            for other in (self._spare, *self._workers):
                os.close(other)
            _become_worker(worker, index, connection, page, self._config, [])
        except BaseException:
            traceback.print_exc()
            process.flush_output()
        finally:
            process.exit_now(1)  # never back into the zygote's loop

    def _execute(self, worker: int, index: int, connection: int, page: int) -> int:
        """Start a worker as a fresh interpreter. Nothing is run between fork and exec."""
        places = ((connection, _SOCKET), (page, _PAGE), (self._config_fd, _CONFIG))
        # Copies far up: a source that is another one's place would be overwritten first.
        copies = [_duplicate_above(fd, 64) for fd, _ in places]
        try:
            return os.posix_spawn(
                sys.executable,
                [
                    sys.executable,
                    *_own_flags(),
                    os.path.join(_HERE, "zygote.py"),
                    "--worker",
                    *map(str, (worker, index, self._pid)),
                ],
                _own_environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, copy, place)
                    for copy, (_, place) in zip(copies, places, strict=True)
                ],
            )
        finally:
            for copy in copies:
                os.close(copy)

    def _reap(self, pidfd: int) -> None:
        worker, pid = self._workers.pop(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        numbers = pid.to_bytes(4, "little") + status.to_bytes(4, "little")
        peak = usage.ru_maxrss * 1024
        self._send(frames.EXITED, worker, numbers + peak.to_bytes(8, "little"))

    def _send(self, kind: int, ident: int, payload: bytes, fds: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(kind, ident, payload, fds)
        except frames.ChannelClosed:
            self._end()

    def _end(self) -> NoReturn:
        """The host is gone: so are its workers."""
        for pidfd in self._workers:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        process.exit_now(0)


def _own_flags() -> list[str]:
    """The flags that this interpreter was started with."""
    isolation = "-I" if sys.flags.isolated else "-s"
    warned = [f"-W{option}" for option in sys.warnoptions]
    return [isolation, *warned, f"-Xutf8={sys.flags.utf8_mode}"]


def _own_environment() -> dict[str, str]:
    """The environment without what the library left out when it started this interpreter."""
    kept = ("PYTHONHASHSEED",)
    variables = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON") or n in kept}
    return {**variables, "PYTHONSAFEPATH": "1"}


def _lacking() -> str | None:
    """What this system cannot do that workers need; None when nothing is missing."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            return (
                f"pidfd_open: {error.strerror}. theus needs Linux 5.4 or later and a sandbox that "
                "allows this system call"
            )
    return None


def _duplicate_above(fd: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def _be_worker(worker: int, index: int, zygote: int) -> NoReturn:
    """A worker that was started as a fresh interpreter."""
    process.reset_signals()
    process.close_descriptors(keep=(0, 1, 2, _SOCKET, _PAGE, _CONFIG))
    process.die_with_parent(zygote)
    # The offset is shared with other workers that read it just now.
    config: dict[str, Any] = json.loads(os.pread(_CONFIG, os.fstat(_CONFIG).st_size, 0))
    os.close(_CONFIG)
    for fd in (_SOCKET, _PAGE):
        os.set_inheritable(fd, False)
    _enter(config)
    preload = importlib.import_module("theus.worker.preload")
    importlib.import_module("theus.worker.signals").install()
    preload.set_environment(config.get("env") or None, int(config.get("threads") or 1))
    gc.enable()
    problems = [
        f"preload: {name!r} cannot be imported ({problem})"
        for name, problem in preload.import_modules(
            config.get("preload") or (), stop_at_threads=False
        )
    ]
    _become_worker(worker, index, _SOCKET, _PAGE, config, problems)


def _become_worker(
    worker: int,
    index: int,
    connection: int,
    page: int,
    config: dict[str, Any],
    problems: list[str],
) -> NoReturn:
    # User code must not find this file as its main program: multiprocessing's children would run
    # it again.
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = [""]
    try:
        serve = importlib.import_module("theus.worker.main").serve
        serve(
            socket.socket(fileno=connection),
            page,
            worker=worker,
            index=index,
            config=config,
            problems=problems,
        )
    except BaseException:
        traceback.print_exc()
        process.flush_output()
        # At once: the socket goes with the exception, and a process that lives on without it looks
        # as if it had been cut off.
        process.exit_now(1)
    raise AssertionError("a worker's main loop does not return")
