"""The zygote and its workers as processes: how they start, what they inherit, how they end."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_host import (
    CONFIG,
    DEADLINE,
    EXITED,
    SPAWN_FAILED,
    ZYGOTE,
    Connection,
    Host,
    Worker,
)
from processes import descriptors


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


class TestStart:
    def test_hello(self, host: Host) -> None:
        hello = host.wait_until_ready()
        assert hello == {
            "pid": host.process.pid,
            "python": sys.version,
            "mode": "fork",
            "warnings": [],
        }

    def test_environment_directory_and_path(self, tmp_path: Path) -> None:
        (tmp_path / "only_here.py").write_text("x = 5")
        env = {"PATH": os.environ["PATH"], "MINE": "yes", "OMP_NUM_THREADS": "3"}
        path = [str(tmp_path), *sys.path]
        with Host(env=env, cwd=str(tmp_path), sys_path=path, threads=2) as host:
            (worker,) = host.spawn()
            found = worker.run(lambda ctx: (dict(os.environ), os.getcwd(), sys.path))
            assert found[0].pop("OPENBLAS_NUM_THREADS") == "2", "the engine's share"
            assert found[0].pop("OMP_NUM_THREADS") == "3", "the user's own setting wins"
            others = {name: v for name, v in found[0].items() if not name.endswith("_THREADS")}
            assert others == {"PATH": os.environ["PATH"], "MINE": "yes"}
            assert found[1:] == (str(tmp_path), path)
            assert worker.run(lambda ctx: __import__("only_here").x) == 5

    def test_a_directory_that_is_gone(self, tmp_path: Path) -> None:
        with Host(cwd=str(tmp_path / "gone")) as host:
            assert "gone" in host.wait_until_ready()["warnings"][0]
            assert host.spawn()[0].run(lambda ctx: os.getcwd()) == "/"

    def test_modules_beside_the_script_do_not_shadow_what_workers_need(
        self, tmp_path: Path
    ) -> None:
        for name in ("socket", "logging", "pickle", "struct", "json", "random", "traceback"):
            (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
        path = [str(tmp_path), *sys.path]
        with Host(cwd=str(tmp_path), sys_path=path) as host:
            assert host.spawn()[0].run(lambda ctx: ctx.log.name and 3) == 3

    def test_a_preload_that_fails_is_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "broken_module.py").write_text("raise SystemExit('not today')")
        path = [*sys.path, str(tmp_path)]
        with Host(sys_path=path, preload=["no_such_module", "broken_module"]) as host:
            first, second = host.wait_until_ready()["warnings"]
            assert "no_such_module" in first
            assert "not today" in second
            assert host.hello["mode"] == "fork"
            assert host.spawn()[0].run(lambda ctx: 1) == 1

    def test_what_preloaded_modules_drop_is_gone(self, tmp_path: Path) -> None:
        (tmp_path / "drops_a_cycle.py").write_text(
            "import weakref\n"
            "class Node: pass\n"
            "node = Node()\n"
            "node.itself, seen = node, weakref.ref(node)\n"
            "del node\n"
        )
        with Host(sys_path=[*sys.path, str(tmp_path)], preload=["drops_a_cycle"]) as host:
            (worker,) = host.spawn()
            assert worker.run(lambda ctx: sys.modules["drops_a_cycle"].seen() is None)

    def test_blas_has_its_threads(self) -> None:
        with Host(threads=2) as host:
            (worker,) = host.spawn()

            def threads(ctx: Any) -> int:
                a = np.ones((700, 700))
                for _ in range(20):
                    a @ a
                return len(os.listdir("/proc/self/task"))

            assert worker.run(threads) == 2
        with Host(threads=1) as host:
            assert host.spawn()[0].run(threads) == 1

    def test_signals_are_as_in_a_fresh_python(self) -> None:
        # What a host may hand down: an ignored SIGCHLD and a blocked SIGUSR1.
        spoil = (
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])"
        )

        def look(ctx: Any) -> Any:
            kept = [
                n.name
                for n in signal.valid_signals()
                if isinstance(n, signal.Signals)
                and signal.getsignal(n) not in (signal.SIG_DFL, None)
            ]
            return sorted(kept), list(signal.pthread_sigmask(signal.SIG_BLOCK, []))

        with Host(prelude=spoil) as host:
            (worker,) = host.spawn()
            assert worker.run(look) == (["SIGINT", "SIGPIPE", "SIGXFSZ"], [])
            worker.kill()
            assert exited(host, worker)[0] == signal.SIGKILL

    def test_descriptors_of_the_host_do_not_leak_into_workers(self) -> None:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        with Host(pass_fds=(writer,)) as host:
            (worker,) = host.spawn()
            inode = os.readlink(f"/proc/self/fd/{writer}")
            for pid in (host.process.pid, worker.pid):
                assert not [name for name in descriptors(pid) if inode in name]
        os.close(reader)
        os.close(writer)

    def test_a_worker_holds_no_descriptor_of_its_siblings(self, host: Host) -> None:
        workers = host.spawn(3)
        for worker in workers:
            names = [name.split(": ")[1] for name in descriptors(worker.pid)]
            assert len([n for n in names if n.startswith("socket:")]) == 1, names
            assert not [n for n in names if "pidfd" in n]
            assert len([n for n in names if "memfd" in n]) == 1, "the status page"

    def test_another_protocol_is_refused(self) -> None:
        host = Host(protocol=99)
        _, errors = host.process.communicate(timeout=DEADLINE)
        host.connection.close()
        assert host.process.returncode == 78
        assert b"protocol 99" in errors
        assert b"Traceback" not in errors

    def test_without_numpy_workers_cannot_be_had_and_the_reason_is_told(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "numpy.py").write_text("raise ImportError('no numpy for you')")
        with Host(sys_path=[str(tmp_path), *sys.path], preload=[]) as host:
            host.wait_until_ready()
            with pytest.raises(AssertionError, match="no numpy for you"):
                host.spawn()
            host.workers.pop().close()
        assert b"no numpy for you" in host.errors

    def test_workers_are_first_to_go_when_memory_runs_out(self, host: Host) -> None:
        def score(pid: int | str) -> int:
            return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

        assert score(host.spawn()[0].pid) >= min(1000, score("self") + 100)


class TestRandomNumbers:
    def draw(self, worker: Worker) -> tuple[float, float]:
        return worker.run(lambda ctx: (random.random(), np.random.rand()))

    def test_workers_draw_different_ones(self, host: Host) -> None:
        drawn = [self.draw(worker) for worker in host.spawn(3)]
        assert len({a for a, _ in drawn}) == len({b for _, b in drawn}) == 3

    def test_a_replacement_does_not_repeat_them(self, host: Host) -> None:
        (first,) = host.spawn()
        drawn = self.draw(first)
        first.kill()
        exited(host, first)
        assert self.draw(host.spawn()[0]) != drawn

    def seeded(self, seed: int, look: Any = None, **changes: Any) -> tuple[float, float]:
        """What worker 77 of a host draws, after looking at something."""
        with Host(seed=seed, **changes) as host:
            host.wait_until_ready()
            worker = Worker(host, 77, 0)
            host.workers.append(worker)
            worker.wait_until_spawned()
            worker.wait_until_ready()
            if look is not None:
                worker.run(look)
            return self.draw(worker)

    def test_they_depend_on_the_seed(self) -> None:
        assert self.seeded(1) == self.seeded(1) != self.seeded(2)

    def test_numpys_are_seeded_whenever_it_is_imported(self) -> None:
        def find(ctx: Any) -> None:
            import importlib.util

            assert importlib.util.find_spec("numpy.random") is not None

        before = self.seeded(1, preload=["numpy", "numpy.random"])
        assert self.seeded(1) == self.seeded(1, find) == before


class TestFreshInterpreters:
    """A preloaded module that starts a thread rules out forking."""

    @pytest.fixture
    def threaded(self, tmp_path: Path) -> Iterator[Host]:
        (tmp_path / "starts_threads.py").write_text(
            textwrap.dedent("""
                import threading
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                """)
        )
        path = [*sys.path, str(tmp_path)]
        with Host(sys_path=path, preload=["starts_threads", "no_such_module"], threads=2) as host:
            yield host

    def test_they_work_the_same(self, threaded: Host) -> None:
        hello = threaded.wait_until_ready()
        assert hello["mode"] == "exec"
        assert "starts_threads" in hello["warnings"][0]
        workers = threaded.workers = [Worker(threaded, n, n - 1) for n in (1, 2)]
        for worker in workers:
            worker.wait_until_spawned()
        for worker in workers:
            worker.wait_until_ready()
            record = worker.expect(25)
            record.take("I")
            record.text()
            assert "no_such_module" in record.text()

        def look(ctx: Any) -> Any:
            return (
                os.getpid(),
                os.getppid(),
                ctx.worker.index,
                os.environ["OMP_NUM_THREADS"],
                "starts_threads" in sys.modules,
                random.random(),
                hasattr(sys.modules["__main__"], "__file__"),
            )

        found = [worker.run(look) for worker in workers]
        assert [f[:5] for f in found] == [
            (worker.pid, threaded.process.pid, n, "2", True) for n, worker in enumerate(workers)
        ]
        assert found[0][5] != found[1][5]
        assert not found[0][6]
        workers[0].kill()
        assert exited(threaded, workers[0])[0] == signal.SIGKILL
        for worker in workers[1:]:
            names = [name.split(": ")[1] for name in descriptors(worker.pid)]
            assert len([n for n in names if n.startswith("socket:")]) == 1, names
            assert len([n for n in names if "memfd" in n]) == 1, "the status page"


def test_no_warning_of_forking_on_any_python() -> None:
    with Host(env={**os.environ, "PYTHONWARNINGS": "error"}) as host:
        for worker in host.spawn(2):
            worker.run(lambda ctx: None)
    assert host.errors == b""
    assert host.output == b""


def test_spawn_fails_with_the_reason_when_the_zygote_has_no_descriptors(tmp_path: Path) -> None:
    (tmp_path / "hoarder.py").write_text(
        "import os, resource\n"
        "limit = max(map(int, os.listdir('/proc/self/fd'))) + 8\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "kept = []\n"
        "try:\n"
        "    while True: kept.append(os.open('/dev/null', 0))\n"
        "except OSError: os.close(kept.pop())\n"
    )
    with Host(sys_path=[*sys.path, str(tmp_path)], preload=["hoarder"]) as host:
        host.wait_until_ready()
        worker = Worker(host, 5, 0)
        host.workers.append(worker)
        failed = host.connection.expect(SPAWN_FAILED, 5)
        assert "ulimit -n" in failed.text()


def test_config_may_be_large() -> None:
    with Host(env={**os.environ, "LARGE": "x" * 1_000_000}) as host:
        assert host.spawn()[0].run(lambda ctx: len(os.environ["LARGE"])) == 1_000_000


def test_the_first_frame_must_be_config() -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", str(ZYGOTE), str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    theirs.close()
    connection = Connection(ours)
    connection.send(CONFIG + 1, 0, json.dumps({}).encode())
    assert b"not CONFIG" in process.communicate(timeout=DEADLINE)[1]
    connection.close()
