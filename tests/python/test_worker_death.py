"""How workers end, what the host learns of it, and what children that they fork may do."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_host import DEADLINE, EXITED, PICKLE, ZYGOTE, Host, Worker, inline
from polling import until
from processes import alive, descriptors, state


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def exited(host: Host, worker: Worker) -> tuple[int, int]:
    """The wait status and the peak memory that the zygote reports."""
    report = host.connection.expect(EXITED, worker.number)
    pid, status, peak = report.take("IIQ")
    assert pid == worker.pid
    return status, peak


class Blocks:
    """Waits at a FIFO when it is pickled or unpickled."""

    def __init__(self, fifo: str) -> None:
        self.fifo = fifo

    def __reduce__(self) -> Any:
        return open, (self.fifo,)


def give_blocker(ctx: Any, fifo: str) -> Any:
    class Late:
        def __reduce__(self) -> Any:
            open(fifo).close()
            return int, ()

    return Late()


class TestDeath:
    @pytest.mark.parametrize(("phase", "where"), [(1, "input"), (2, "function"), (3, "result")])
    def test_the_page_tells_what_ran(
        self, host: Host, tmp_path: Path, phase: int, where: str
    ) -> None:
        fifo = str(tmp_path / "fifo")
        os.mkfifo(fifo)
        (worker,) = host.spawn()
        assert worker.run(lambda ctx: 1) == 1
        until(lambda: worker.status() == (0, 0), "an idle page")
        if where == "input":
            value = inline(PICKLE, pickle.dumps(("call", (Blocks(fifo),), {})))
            task = worker.submit(worker.define(lambda ctx, x: 1), value)
        else:
            fn = give_blocker if where == "result" else lambda ctx, path: Path(path).read_text()
            task = worker.call(fn, fifo)
        worker.call(lambda ctx: 2)  # queued behind it
        until(lambda: worker.status() == (phase, task), f"phase {phase}")
        worker.kill()
        status, peak = exited(host, worker)
        assert (os.WIFSIGNALED(status), os.WTERMSIG(status)) == (True, signal.SIGKILL)
        assert peak > 1 << 20
        assert worker.status() == (phase, task)
        assert worker.connection.receive() is None

    @pytest.mark.parametrize(
        ("end", "status"),
        [
            (lambda ctx: os._exit(3), 3 << 8),
            (lambda ctx: os.kill(os.getpid(), signal.SIGSEGV), signal.SIGSEGV),
            (lambda ctx: os.abort(), signal.SIGABRT),
        ],
    )
    def test_how_it_ended_is_reported(self, host: Host, end: Any, status: int) -> None:
        (worker,) = host.spawn()
        worker.call(end)
        assert exited(host, worker)[0] & ~0x80 == status
        (other,) = host.spawn()
        assert other.run(lambda ctx: 1) == 1

    @pytest.mark.parametrize("stopped", [False, True])
    def test_workers_die_with_the_zygote(self, stopped: bool) -> None:
        host = Host()
        workers = host.spawn(2)
        if stopped:
            for worker in workers:
                os.kill(worker.pid, signal.SIGSTOP)
                until(lambda pid=worker.pid: state(pid) in "tT", "stopped")  # type: ignore[misc]
        host.process.kill()
        for worker in workers:
            worker.wait_until_dead()
        host.__exit__(None, None, None)
        assert host.errors == b""

    def test_everything_ends_when_the_host_closes_its_sockets(self) -> None:
        host = Host()
        workers = host.spawn(2)
        workers[0].call(lambda ctx: signal.pause())  # does not read its socket
        until(lambda: workers[0].status()[0] == 2, "running")
        host.connection.close()
        for worker in workers:
            worker.wait_until_dead()
        assert host.process.wait(DEADLINE) == 0
        host.__exit__(None, None, None)
        assert host.errors == b""

    def test_an_idle_worker_ends_when_its_own_socket_is_closed(self, host: Host) -> None:
        worker, other = host.spawn(2)
        worker.connection.close()
        assert exited(host, worker)[0] == 0
        assert other.run(lambda ctx: 1) == 1

    def test_a_worker_whose_host_has_gone_ends_silently_with_its_task(self) -> None:
        with Host() as host:
            (worker,) = host.spawn()
            worker.call(lambda ctx: b"x" * 30_000)
            worker.connection.close()
            assert exited(host, worker)[0] == 0
        assert host.errors == b""

    def test_a_zygote_whose_host_never_speaks(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", str(ZYGOTE), str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        theirs.close()
        ours.close()
        assert process.communicate(timeout=DEADLINE)[1] == b""
        assert process.returncode == 0


class TestForks:
    def test_a_child_that_user_code_forks_holds_no_socket(self, host: Host) -> None:
        def fork(ctx: Any) -> int:
            pid = os.fork()
            if not pid:
                signal.pause()
            return pid

        (worker,) = host.spawn()
        child = worker.run(fork)
        try:
            worker.kill()
            exited(host, worker)
            assert worker.connection.receive() is None, "the end of the stream is seen"
            assert alive(child)
            assert not [name for name in descriptors(child) if ": socket:" in name]
        finally:
            os.kill(child, signal.SIGKILL)

    def test_in_such_a_child_ctx_says_what_is_wrong(self, host: Host) -> None:
        def fork(ctx: Any) -> bytes:
            reader, writer = os.pipe()
            pid = os.fork()
            if not pid:
                try:
                    ctx.heavy["x"]
                except BaseException as error:
                    os.write(writer, f"{type(error).__name__}: {error}".encode())
                os._exit(0)
            os.waitpid(pid, 0)
            return os.read(reader, 1000)

        found = host.spawn()[0].run(fork).decode()
        assert found.startswith("ForkedProcessError")
        assert "before forking" in found

    def test_a_child_that_returns_from_the_task_answers_nothing(self, host: Host) -> None:
        def fork(ctx: Any) -> str:
            pid = os.fork()
            if not pid:
                return "child"
            os.waitpid(pid, 0)
            return "parent"

        (worker,) = host.spawn()
        assert worker.run(fork) == "parent"
        assert worker.run(lambda ctx: 1) == 1

    def test_multiprocessing_works_in_a_task(self, host: Host) -> None:
        def use(ctx: Any, method: str) -> Any:
            import multiprocessing

            with multiprocessing.get_context(method).Pool(1) as pool:
                return pool.map(abs, [-1, -2])

        (worker,) = host.spawn()
        for method in ("fork", "spawn"):
            assert worker.run(use, method) == [1, 2]

    def test_subprocesses_get_a_clean_process(self, host: Host) -> None:
        def run(ctx: Any) -> Any:
            code = "import os; print(len(os.listdir('/proc/self/fd')))"
            return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

        found = host.spawn()[0].run(run)
        assert found.stderr == ""
        assert int(found.stdout) == 4  # 0, 1, 2 and the one that lists them
