"""What nobody needs any more comes back by itself, and `reap` counts it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs
import processes
from conftest import EngineFactory
from gate import Gate
from polling import until
from programs import run_text, started
from theus import HeapFull, TheusEngine

MIB = 1 << 20
COUNTS = ("segments", "bytes", "handles", "processes")


@contextlib.contextmanager
def automatic_collection_off() -> Iterator[None]:
    """Garbage stays until somebody collects it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def reclaimed(engine: TheusEngine) -> dict[str, Any]:
    stats: dict[str, Any] = engine.stats()["reaper"]
    return stats


def hold_in_a_cycle(ctx: Any, key: str) -> tuple[int, int]:
    """Leave a map of a shared array that only the garbage collector finds: pid and address."""
    gc.disable()
    array = ctx.heavy[key]
    cycle: list[Any] = [array]
    cycle.append(cycle)
    return os.getpid(), int(array.__array_interface__["data"][0])


def maps_memory_at(pid: int, address: int) -> bool:
    return any(address in r and r.is_shared_memory for r in processes.regions(pid))


def test_finalizers_free_memory_without_any_further_call(engine: TheusEngine) -> None:
    arrays = [engine.heavy.alloc(f"a{i}", MIB, np.uint8) for i in range(8)]
    addresses = [a.__array_interface__["data"][0] for a in arrays]
    assert all(maps_memory_at(os.getpid(), a) for a in addresses)
    del arrays
    # From here on the program asks the kernel only.
    until(lambda: not any(maps_memory_at(os.getpid(), a) for a in addresses), "the maps to go")
    assert reclaimed(engine)["segments"] == 8
    assert reclaimed(engine)["bytes"] == 8 * MIB
    assert reclaimed(engine)["handles"] >= 8


def test_a_report_is_exact_while_another_thread_allocates(engine: TheusEngine) -> None:
    stop = threading.Event()
    kept: list[Any] = []

    def allocate() -> None:
        while not stop.is_set() and len(kept) < 200:
            kept.append(engine.heavy.alloc("kept", MIB, np.uint8))

    with automatic_collection_off():
        cycles: list[Any] = []
        for _ in range(10):
            cycle: list[Any] = [engine.heavy.alloc("garbage", MIB, np.uint8)]
            cycle.append(cycle)
            cycles.append(cycle)
        gc.collect()
        engine.reap()
        thread = threading.Thread(target=allocate)
        thread.start()
        until(lambda: len(kept) > 5, "the other thread to allocate")
        del cycles, cycle
        report = engine.reap()
        stop.set()
        thread.join(60)
    assert (report["segments"], report["bytes"]) == (10, 10 * MIB)
    assert report["handles"] == 10
    before = len(kept)
    kept.clear()
    until(lambda: reclaimed(engine)["segments"] == 10 + before, "the rest to come back")
    assert engine.reap() == dict.fromkeys(COUNTS, 0)


def test_stats_tell_what_the_reaper_did(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    began = time.time()
    engine.reap()
    stats = reclaimed(engine)
    assert set(stats) == {*COUNTS, "last_run"}
    assert began <= stats["last_run"] <= time.time()
    assert engine.stats()["features"]["memfd"] is True
    assert engine.heavy.cleanup().keys() == set(COUNTS)


def test_reaping_has_an_idle_worker_collect_its_garbage(make_engine: EngineFactory) -> None:
    # A reap waits a fifth of a second, and the worker may be slower. Then once more from the start:
    # after some seconds the watch would have it collect, whatever a reap does.
    def reaped_at_once() -> bool:
        engine = make_engine(workers=1)
        engine.heavy.put("x", np.ones(MIB, np.uint8))
        pid, address = engine.run(hold_in_a_cycle, key="x")
        engine.heavy.put("x", np.zeros(MIB, np.uint8))
        until(lambda: engine.stats()["memory"]["retiring"] == MIB, "the host to let go of it")
        assert maps_memory_at(pid, address)
        report = engine.reap()
        if report["segments"]:
            assert (report["segments"], report["bytes"]) == (1, MIB)
            assert engine.stats()["memory"]["retiring"] == 0
            assert not maps_memory_at(pid, address)
        engine.close()
        return report["segments"] == 1

    until(reaped_at_once, "a worker to let go of it while one reap lasts")


def test_an_idle_worker_collects_its_garbage_without_being_asked_to(
    make_engine: EngineFactory,
) -> None:
    engine = make_engine(workers=1)
    engine.heavy.put("x", np.ones(MIB, np.uint8))
    pid, address = engine.run(hold_in_a_cycle, key="x")
    engine.heavy.put("x", np.zeros(MIB, np.uint8))
    # From here on the program asks the kernel only.
    until(lambda: not maps_memory_at(pid, address), "the worker to let go of it")
    until(lambda: reclaimed(engine)["bytes"] == MIB, "the bytes to be counted")


def test_a_full_heap_makes_workers_let_go(make_engine: EngineFactory) -> None:
    # An allocation waits a fifth of a second; the rest as for reaping.
    def fits_at_once() -> bool:
        engine = make_engine(workers=1, heap=16 * MIB)
        engine.heavy.put("x", np.ones(10 * MIB, np.uint8))
        engine.run(hold_in_a_cycle, key="x")
        del engine.heavy["x"]
        until(lambda: engine.stats()["memory"]["retiring"] == 10 * MIB, "the host to let go of it")
        try:
            engine.heavy.alloc("y", 10 * MIB, np.uint8)
        except HeapFull:
            return False
        finally:
            engine.close()
        return True

    until(fits_at_once, "a worker to let go of what it only holds in garbage")


def take_memory(ctx: Any, how: str) -> int:
    if how == "alloc":
        return len(ctx.heavy.alloc("new", 6 * MIB, np.uint8))
    return len(ctx.heavy.cow("other"))


@pytest.mark.parametrize("how", ["alloc", "cow"])
def test_a_task_gets_the_memory_of_its_workers_own_garbage(
    make_engine: EngineFactory, how: str
) -> None:
    engine = make_engine(workers=1, heap=16 * MIB)
    engine.heavy.put("other", np.ones(5 * MIB, np.uint8))
    engine.heavy.put("x", np.ones(8 * MIB, np.uint8))
    engine.run(hold_in_a_cycle, key="x")
    del engine.heavy["x"]
    until(lambda: engine.stats()["memory"]["retiring"] == 8 * MIB, "the host to let go of it")
    assert engine.run(take_memory, how=how) > 4 * MIB


def take_most_memory(ctx: Any) -> int:
    ctx.heavy.alloc("new", 12 * MIB, np.uint8)
    return os.getpid()


def test_a_task_gets_the_memory_of_another_workers_garbage(
    make_engine: EngineFactory, tmp_path: Path
) -> None:
    # Its own worker cannot collect that, and nobody reaps. Attempts are limited as above.
    numbers = itertools.count()

    def got_at_once() -> bool:
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        engine = make_engine(workers=2, heap=16 * MIB)
        with Gate(directory) as gate:
            first = engine.submit(jobs.wait_and_give, 1, gate.reports, gate.path)
            (other,) = gate.arrived(1)
            engine.heavy.put("x", np.ones(8 * MIB, np.uint8))
            holder, _ = engine.run(hold_in_a_cycle, key="x")
            assert holder != other["pid"]
            del engine.heavy["x"]
            until(lambda: engine.stats()["memory"]["retiring"] == 8 * MIB, "the host to let go")
            gate.open()
            assert first.result(60) == 1
        try:
            return engine.run(take_most_memory) != holder
        except HeapFull:
            return False
        finally:
            engine.close()

    until(got_at_once, "another worker to let go of what it only holds in garbage")


def test_a_result_gets_the_memory_of_its_workers_own_garbage(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1, heap=16 * MIB)
    engine.heavy.put("x", np.ones(12 * MIB, np.uint8))
    engine.run(hold_in_a_cycle, key="x")
    del engine.heavy["x"]
    until(lambda: engine.stats()["memory"]["retiring"] == 12 * MIB, "the host to let go of it")
    assert engine.run(bytes, 6 * MIB) == bytes(6 * MIB)


def test_a_death_is_counted_and_nothing_of_it_is_held(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    pid = engine.run(os.getpid)
    before = processes.descriptors()
    os.kill(pid, signal.SIGKILL)
    until(lambda: reclaimed(engine)["processes"] == 1, "the death to be noticed")
    until(lambda: engine.run(os.getpid) != pid, "another worker")
    # Socket, status page and pidfd of the dead one are closed: the new one's take their numbers.
    until(lambda: len(processes.descriptors()) <= len(before), "its descriptors to be closed")


def test_a_stopped_worker_costs_no_task(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    pid = engine.run(os.getpid)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: processes.state(pid) == "T", "it to be stopped")
    assert engine.run(os.getpid) != pid


def test_an_idle_engine_burns_nothing(tmp_path: Path) -> None:
    text = """
import sys
import numpy as np
from theus import HeapFull, TheusEngine
engine = TheusEngine(workers=2)
for version in range(5):
    engine.heavy.put("x", np.full(1 << 20, version))
    list(engine.map(abs, range(100)))
print("idle", flush=True)
sys.stdin.read()
"""
    with started(["-c", text], cwd=tmp_path, source="") as program:
        assert program.line() == "idle"
        all_of_it = [program.pid, *processes.descendants(program.pid)]
        assert len(all_of_it) == 4, "the host, the zygote and two workers"
        # The last rounds of the watch come first; then there is nothing, for as long as one looks.
        until(lambda: not ticks_burnt(all_of_it, seconds=3), "three seconds without any CPU time")
        program.end("")


def ticks_burnt(pids: list[int], seconds: float) -> int:
    """How many ticks of CPU time the processes use in a stretch of time."""
    before = sum(map(processor_ticks, pids))
    threading.Event().wait(seconds)  # what is measured takes time
    return sum(map(processor_ticks, pids)) - before


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_forked_child_has_no_reaper_and_does_no_harm(tmp_path: Path) -> None:
    text = """
import gc, os, warnings
import numpy as np
from theus import ForkedProcessError, TheusEngine
warnings.simplefilter("ignore", DeprecationWarning)
engine = TheusEngine(workers=1)
kept = engine.heavy.put("x", np.arange(1 << 20))
dropped = engine.heavy.alloc("y", 1 << 20)
pid = os.fork()
if pid == 0:
    del dropped
    gc.collect()
    try:
        engine.reap()
    except ForkedProcessError:
        os._exit(0 if kept[-1] == (1 << 20) - 1 else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
dropped[:] = 7  # the child's finalizer did not unmap it here
del dropped
while engine.stats()["reaper"]["segments"] < 1:
    pass
print(engine.stats()["reaper"]["segments"], int(kept[5]))
"""
    ended = run_text(text, cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (0, "0\n1 5\n", "")
