"""Every cell of the crash matrix is hit, and does what crash_matrix.py says."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crash_places
import jobs
import theus
from crash_faults import FAULTS, CommitsWhenLoaded, committed
from crash_matrix import MATRIX, PLACES, SOMEBODY, End, markdown, pattern
from gate import Gate
from memory_cgroup import MemoryCgroup, NoCgroup, memory_cgroup
from polling import until
from processes import alive, descendants, state
from theus import TheusEngine

LIMIT = 128 << 20
DEADLINE = 60.0
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "reliability.md"

hits: collections.Counter[tuple[str, str]] = collections.Counter()
no_cgroup: list[str] = []

Fault = tuple[str, str, str]
Bring = Callable[[TheusEngine, Fault, str], "Future[Any]"]


# ---- how a fault is brought to its place ---------------------------------------------------------


def to_unpickle(engine: TheusEngine, fault: Fault, _: str) -> Future[Any]:
    return engine.submit(crash_places.take, CommitsWhenLoaded(*fault))


def to_running(engine: TheusEngine, fault: Fault, _: str) -> Future[Any]:
    return engine.submit(crash_places.run, *fault)


def to_pickling(engine: TheusEngine, fault: Fault, _: str) -> Future[Any]:
    return engine.submit(crash_places.give, *fault)


def to_replying(engine: TheusEngine, fault: Fault, _: str) -> Future[Any]:
    return engine.submit(crash_places.reply, *fault)


def to_fetching(engine: TheusEngine, fault: Fault, key: str) -> Future[Any]:
    for old in list(engine.heavy.keys()):
        del engine.heavy[old]  # else it would be sent along: the function has read it
    engine.heavy.put(key, np.ones(1000))
    return engine.submit(crash_places.fetch, key, *fault)


def to_retiring(engine: TheusEngine, fault: Fault, key: str) -> Future[Any]:
    engine.heavy.put(key, np.ones(1000))
    engine.run(crash_places.read, key)  # now the worker, there is but one, has it mapped
    held = engine.heavy[key]
    del engine.heavy[key]
    with tempfile.TemporaryDirectory() as directory:
        started = Path(directory, "started")
        task = engine.submit(crash_places.retire, str(started), *fault)
        until(started.exists, "the task to have started")
        del held  # nothing needs the array any more
        until(lambda: engine.stats() and committed(Path(fault[1])), "the worker to be told")
    return task


# (how many workers, the task's function, how it is submitted)
BRING: dict[str, tuple[int, Callable[..., Any], Bring]] = {
    "unpickle": (2, crash_places.take, to_unpickle),
    "running": (2, crash_places.run, to_running),
    "pickling": (2, crash_places.give, to_pickling),
    "replying": (2, crash_places.reply, to_replying),
    "fetching": (2, crash_places.fetch, to_fetching),
    "retiring": (1, crash_places.retire, to_retiring),
}


# ---- the pool as it has to be before and after ---------------------------------------------------


def settled(engine: TheusEngine, workers: int) -> list[int]:
    """Wait until nothing runs and all workers are there; gives their pids."""

    def look() -> list[int]:
        stats = engine.stats()
        tasks, states = stats["tasks"], [worker["state"] for worker in stats["workers"]]
        if tasks["queued"] or tasks["running"] or states != ["idle"] * workers:
            return []
        pids = [worker["pid"] for worker in stats["workers"]]
        # One that has just died looks idle until its end is known.
        return pids if all(map(alive, pids)) else []

    pids = until(look, f"{workers} idle workers", DEADLINE)
    family = descendants(os.getpid())
    assert set(pids) < set(family), "the workers are children of the zygote"
    assert len(family) == workers + 1, "the zygote and its workers, and nothing else"
    return pids


def zygote_of(engine: TheusEngine) -> int:
    workers = {worker["pid"] for worker in engine.stats()["workers"]}
    (zygote,) = (pid for pid in descendants(os.getpid()) if workers & set(descendants(pid)))
    return zygote


@contextlib.contextmanager
def small_memory() -> Iterator[MemoryCgroup | None]:
    """A cgroup to run out of memory in; None where none can be made."""
    with contextlib.ExitStack() as stack:
        group = None
        try:
            group = stack.enter_context(memory_cgroup(LIMIT))
        except NoCgroup as refused:
            no_cgroup[:] = [str(refused)]
        yield group


def confine(engine: TheusEngine, group: MemoryCgroup, workers: int) -> None:
    """Replace the workers by such as were born in the cgroup."""
    old = settled(engine, workers)
    group.join(zygote_of(engine))
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, old)), "the old workers to be gone")
    assert set(settled(engine, workers)) < set(group.pids())


@contextlib.contextmanager
def cell(place: str, how: str, log: Path) -> Iterator[End]:
    """A failure in here says which cell it belongs to; otherwise its hits are counted."""
    try:
        yield MATRIX[place][how]
        done = committed(log)
        assert {name for name, _ in done} == {how}, "the place was not reached"
    except Exception as error:
        raise AssertionError(f"{place} x {how}: {error}") from error
    hits[place, how] += len(done)


def hows(group: MemoryCgroup | None) -> list[str]:
    return [how for how in FAULTS if group is not None or how != "OOM kill"]


def assert_ends(future: Future[Any], end: End, **known: Any) -> BaseException | None:
    """A task ended as the table says."""
    if not end.error:
        future.result(DEADLINE)
        return None
    try:
        error = future.exception(DEADLINE)
    except concurrent.futures.CancelledError as cancelled:
        error = cancelled
    assert error is not None, f"it ended well, not with {end.error}"
    assert type(error).__name__ == end.error, repr(error)
    wanted = pattern(end.message, **known)
    assert re.match(wanted, str(error)), f"the message {str(error)!r} is not {wanted!r}"
    if isinstance(error, theus.WorkerCrashed):
        found = error.signal, error.exit_code, error.oom
        assert found == (end.signal, end.exit_code, end.oom)
        assert error.task == known["task"]
        assert error.reason in str(error)
        assert error.peak_rss is not None
        assert error.peak_rss > 1 << 20
    return error


# ---- the cells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", BRING)
def test_a_fault_in_a_task_costs_that_task(place: str, tmp_path: Path) -> None:
    workers, function, bring = BRING[place]
    name = function.__name__
    with small_memory() as group, TheusEngine(workers=workers) as engine:
        if group is not None:
            confine(engine, group, workers)
        for number, how in enumerate(hows(group)):
            log, key = tmp_path / how, f"key {number}"
            with cell(place, how, log) as end:
                before, counts = settled(engine, workers), engine.stats()["tasks"]
                # Until what its victim had is free, the kernel may take the next one as well.
                others_may_die = how == "OOM kill"
                bystanders = engine.options(retries=3 if others_may_die else 0)
                innocent = [bystanders.submit(pow, 2, n) for n in range(4)]
                fault = how, str(log), str(group.directory) if group else ""
                task = bring(engine, fault, key)
                if how == "SIGSTOP":
                    (_, pid) = until(lambda log=log: committed(log), "the fault")[0]
                    until(lambda pid=pid: state(pid) == "T", "the worker to be stopped")
                    assert not task.done()
                    assert task.cancel()
                innocent += [bystanders.submit(pow, 2, n) for n in range(4, 8)]
                limits = {} if group is None else limits_of(group)
                error = assert_ends(task, end, task=name, key=key, **limits)
                assert [task.result(DEADLINE) for task in innocent] == [2**n for n in range(8)]

                after = settled(engine, workers)
                if isinstance(error, theus.WorkerCrashed):
                    assert error.pid in set(before) - set(after)
                lost = set(before) - set(after)
                least = 0 if end.worker_lives else 1
                most = workers if others_may_die else least
                assert least <= len(lost) <= most, "which workers were replaced"
                counted = engine.stats()["tasks"]
                assert counted["failed"] == counts["failed"] + 1
                assert counted["queued"] == counted["running"] == 0
            del task, error, innocent


def limits_of(group: MemoryCgroup) -> dict[str, Any]:
    """What an error says where there is a cgroup."""
    return {
        "advice": SOMEBODY,
        "cgroup": f"cgroup {group.version} {group.name}",
        "limit_file": group.limit_file,
        "limit": group.limit,
        "limit_mib": group.limit >> 20,
    }


def test_a_fault_in_an_idle_worker_costs_nothing(tmp_path: Path) -> None:
    with small_memory() as group, TheusEngine(workers=2) as engine:
        if group is not None:
            confine(engine, group, 2)
        for how in hows(group):
            log = tmp_path / how
            with cell("idle", how, log) as end:
                before, counts = settled(engine, 2), engine.stats()["tasks"]
                fault = how, str(log), str(group.directory) if group else ""
                pid = engine.run(crash_places.stay_idle, *fault)
                until(lambda log=log: committed(log), "the fault")
                if how == "SIGSTOP":
                    until(lambda pid=pid: state(pid) == "T", "the worker to be stopped")
                    with Gate(tmp_path) as gate:
                        visit(engine, gate, end, stopped=pid)
                until(lambda pid=pid: not alive(pid), "the worker to be gone")
                assert [engine.run(pow, 2, n) for n in range(8)] == [2**n for n in range(8)]
                assert set(before) - set(settled(engine, 2)) == {pid}
                failed = engine.stats()["tasks"]["failed"] - counts["failed"]
                assert failed == (1 if end.error else 0)


def visit(engine: TheusEngine, gate: Gate, end: End, *, stopped: int) -> None:
    """Give each worker one task: that of the stopped one cannot begin."""
    tasks = [
        engine.options(timeout=2 if worker["pid"] == stopped else None).submit(
            jobs.wait_and_give, worker["pid"], gate.reports, gate.path
        )
        for worker in engine.stats()["workers"]  # idle ones are served in this order
    ]
    (seen,) = gate.arrived(1)
    assert seen["pid"] != stopped
    done, waiting = concurrent.futures.wait(tasks, DEADLINE, concurrent.futures.FIRST_COMPLETED)
    assert_ends(done.pop(), end, task="wait_and_give")
    gate.open()
    assert [task.result(DEADLINE) for task in waiting] == [seen["pid"]]


@pytest.mark.parametrize("place", ["start", "handshake"])
def test_a_fault_before_the_first_task(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_memory() as group:
        for how in hows(group):
            log = tmp_path / how
            directory = str(group.directory) if group else ""

            def opened(times: int, how: str = how, log: Path = log) -> TheusEngine:
                asked = "\n".join((how, str(log), directory, str(times)))  # noqa: B023
                monkeypatch.setenv(crash_places.ASKED, asked)
                return TheusEngine(workers=2, preload=[f"crash_at_{place}"])

            with cell(place, how, log) as end:
                with opened(times=1) as engine:  # whatever it was, it is over the next time
                    tasks = [engine.submit(pow, 2, n) for n in range(8)]
                    assert [task.result(DEADLINE) for task in tasks] == [2**n for n in range(8)]
                    settled(engine, 2)
                    if place == "start" and not end.error and how != "SIGSTOP":
                        (warning,) = engine.stats()["warnings"]
                        assert "'crash_at_start' cannot be imported in worker proc" in warning
                if not end.error:
                    continue
                with opened(times=1000) as engine:
                    assert_ends(engine.submit(pow, 2, 3), end)
                    with pytest.raises(theus.TheusError, match="cannot be started"):
                        engine.run(pow, 2, 3)


# ---- the table as a whole ------------------------------------------------------------------------


def test_every_cell_of_the_table_was_hit(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the hits. Runs after the others of this module, all of them."""
    assert list(MATRIX) == list(PLACES)
    assert all(list(cells) == list(FAULTS) for cells in MATRIX.values())
    width = max(map(len, FAULTS))
    with capsys.disabled():
        print("\nhits, where x how:")
        print(" " * width, *(f"{how:>{width}}" for how in FAULTS))
        for place in PLACES:
            print(f"{place:{width}}", *(f"{hits[place, how]:>{width}}" for how in FAULTS))
    empty = [(p, how) for p in PLACES for how in FAULTS if not hits[p, how]]
    if no_cgroup:
        assert {how for _, how in empty} <= {"OOM kill"}
        pytest.skip(f"the cells of 'OOM kill' were left out: {no_cgroup[0]}")
    assert not empty, f"these cells were not hit: {empty}"


def test_the_documentation_shows_this_table() -> None:
    assert markdown() in DOCUMENTATION.read_text(), f"put this into {DOCUMENTATION}:\n{markdown()}"
