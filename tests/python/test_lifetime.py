"""An engine's life: statistics, closing, leaving things open, the end of the program."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import jobs
from conftest import EngineFactory
from polling import until
from theus import EngineClosed, TheusEngine


def test_statistics(engine: TheusEngine) -> None:
    engine.heavy.put("x", np.zeros(1000))
    engine.run(pow, 2, 3)
    with pytest.raises(ZeroDivisionError):
        engine.run(lambda: 1 / 0)
    stats = engine.stats()
    assert stats["version"] == 1
    assert stats["segments"] == 1
    assert stats["memory"]["in_use"] >= 8000
    assert stats["memory"]["limit"] > stats["memory"]["in_use"]
    assert stats["memory"]["free_list"] == 0
    assert (stats["tasks"]["done"], stats["tasks"]["failed"]) == (1, 1)
    assert {"pid", "state", "tasks", "rss_bytes"} <= set(stats["workers"][0])
    assert set(engine.reap()) == {"segments", "bytes", "handles", "processes"}


def test_a_closed_engine_says_so(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    heavy = engine.heavy
    engine.close()
    engine.close()
    engine.shutdown()
    attempts = [
        lambda: engine.run(pow, 2, 3),
        lambda: engine.submit(pow, 2, 3),
        lambda: next(engine.map(abs, [1])),
        lambda: engine.state,
        lambda: engine.compare_and_swap(0, data={"a": 1}),
        lambda: engine.stats(),
        lambda: heavy.alloc("x", 1),
        lambda: asyncio.run(engine.execute(pow, 2, 3)),
    ]
    for attempt in attempts:
        with pytest.raises(EngineClosed):
            attempt()
    assert "closed" in repr(engine)


def test_close_cancels_and_shutdown_waits(make_engine: EngineFactory, tmp_path: Path) -> None:
    engine = make_engine(workers=1)
    never = str(tmp_path / "never")
    running = engine.submit(jobs.wait_for_file, never)
    engine.close()
    assert running.cancelled()
    engine = make_engine(workers=1)
    futures = [engine.submit(pow, 2, i) for i in range(10)]
    engine.shutdown()
    assert [f.result(0) for f in futures] == [2**i for i in range(10)]
    engine = make_engine(workers=1)
    future = engine.submit(pow, 2, 3)
    engine.shutdown(wait=False)
    assert future.result(30) == 8


def test_with_blocks(make_engine: EngineFactory, tmp_path: Path) -> None:
    with make_engine() as engine:
        future = engine.submit(pow, 2, 3)
    assert future.result(0) == 8
    never = str(tmp_path / "never")
    futures = []

    def leave_by_an_exception() -> None:
        with make_engine() as engine:
            futures.append(engine.submit(jobs.wait_for_file, never))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave_by_an_exception()
    assert futures[0].cancelled()

    async def main() -> None:
        async with make_engine() as engine:
            task = asyncio.ensure_future(engine.execute(pow, 2, 3))
            await asyncio.sleep(0)
        assert await task == 8

    asyncio.run(main())


def test_an_engine_that_another_thread_closes_leaves_loops_what_is_theirs(
    make_engine: EngineFactory,
) -> None:
    """The descriptors that it polled are free, and get the numbers of the program's next sockets:
    no loop may still look at those for it."""
    engine = make_engine(workers=1)
    used, resumed = threading.Barrier(3), threading.Event()
    pairs: list[tuple[socket.socket, socket.socket]] = []
    received: dict[int, list[bytes]] = {}

    async def main(number: int) -> None:
        loop = asyncio.get_running_loop()
        assert await engine.execute(pow, 2, 3) == 8
        used.wait(60)
        await loop.run_in_executor(None, resumed.wait, 60)
        mine = [pair[number] for pair in pairs]
        received[number] = [await loop.sock_recv(s, 10) for s in mine]

    threads = [threading.Thread(target=lambda n=n: asyncio.run(main(n))) for n in (0, 1)]
    for thread in threads:
        thread.start()
    used.wait(60)
    engine.close()
    for _ in range(25):
        pair = socket.socketpair()
        pairs.append(pair)
        for end in pair:
            end.setblocking(False)
            end.send(b"theirs")
    resumed.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for pair in pairs:
        for end in pair:
            end.close()
    assert received == {number: [b"theirs"] * 25 for number in (0, 1)}


def test_waiting_is_ended_by_close(make_engine: EngineFactory, tmp_path: Path) -> None:
    engine = make_engine(workers=1)
    never, started = str(tmp_path / "never"), tmp_path / "started"

    def begin() -> None:
        started.touch()
        jobs.wait_for_file(never)

    def close_when_started() -> None:
        until(started.exists, "the task to run")
        engine.close()

    thread = threading.Thread(target=close_when_started)
    thread.start()
    with pytest.raises(EngineClosed):
        engine.run(begin)
    thread.join(30)


def test_an_engine_that_is_dropped_closes(make_engine: EngineFactory) -> None:
    engine = TheusEngine(workers=1)
    assert engine.run(pow, 2, 3) == 8
    del engine  # the fixture sees to it that no process is left
    assert TheusEngine(workers=1).submit(pow, 2, 3).result(60) == 8
    assert list(TheusEngine(workers=1).map(abs, [-1, -2])) == [1, 2]


def test_scan_and_register(engine: TheusEngine, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.py").write_text(
        "from theus import process\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "def helper(x):\n    return Point(x).x + 1\n"
        "@process(parallel=True)\ndef scanned_one(ctx, x):\n    return helper(x)\n"
    )
    (tmp_path / "sub" / "two.py").write_text(
        "from theus import process\n@process(parallel=True)\ndef scanned_two(ctx):\n    return 2\n"
    )
    (tmp_path / "__skipped.py").write_text("raise RuntimeError")
    assert engine.scan_and_register(str(tmp_path)) == ["scanned_one", "scanned_two"]
    assert engine.run("scanned_one", x=1) == 2
    assert engine.run("scanned_two") == 2
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ImportError, match=r"broken\.py cannot be imported: ZeroDivisionError"):
        engine.scan_and_register(str(tmp_path))
    with pytest.raises(NotADirectoryError):
        engine.scan_and_register(str(tmp_path / "none"))


def program(code: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False
    )


def test_a_program_that_never_closes_ends_quietly(tmp_path: Path) -> None:
    done = program(
        "import atexit, time\nfrom theus import TheusEngine\n"
        "engine = TheusEngine(workers=2)\n"
        "array = engine.heavy.put('x', [1.0, 2.0])\n"
        "assert engine.run(pow, 2, 3) == 8\n"
        "atexit.register(lambda: print('still works', engine.run(pow, 2, 4), array.sum()))\n"
        "running = engine.submit(time.sleep, 3600)\n"
        "thread_mode = [engine.submit(pow, 2, i) for i in range(100)]\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "still works 16 3.0\n"
