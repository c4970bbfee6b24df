"""The referee can fail: one small journal, or one thing left behind, for each of its verdicts."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

import leaks
import processes
import referee
from accounting import Account, account_for
from family import WorkerPhase
from hangs import Hang
from journal import Journal
from killing import CELLS, HOST, WORKER, Cell, Kill, Killer
from polling import until
from stages import Stage
from tally import Tally

HERE = Path(__file__).resolve().parent
Fact = dict[str, Any]
OPEN: Fact = {"what": "open"}
CLOSE: Fact = {"what": "close"}
ADDED: Fact = {"what": "added"}
LOOK: Fact = {"what": "look"}
# No process has such a number.
WORKER_1, WORKER_2, WORKER_3 = 1 << 30, (1 << 30) + 1, (1 << 30) + 2
HOST_KILLED = Kill((HOST, Stage.EXECUTING), 1 << 29)


def order(task: int, kind: str = "short", retries: int = 0) -> Fact:
    return {"what": "order", "task": task, "kind": kind, "retries": retries}


def begin(task: int, pid: int = WORKER_1) -> Fact:
    return {"what": "begin", "task": task, "pid": pid}


def cancel(task: int) -> Fact:
    return {"what": "cancel", "task": task}


def end(task: int, how: str, **more: Any) -> Fact:
    return {"what": "end", "task": task, "how": how, **more}


def result(task: int) -> Fact:
    """The right one of a short task."""
    return end(task, "result", facts=[task * 7])


def crashed(task: int, pid: int = WORKER_1) -> Fact:
    return end(task, "crashed", pid=pid)


def counter(value: int, adders: int = 0) -> list[Fact]:
    return [LOOK, {"what": "counter", "value": value, "adders": adders}]


def added_by_task(task: int) -> list[Fact]:
    return [order(task, "adding"), begin(task), end(task, "result", facts=[])]


def killed(*workers: int) -> list[Kill]:
    return [Kill((WORKER, WorkerPhase.RUNNING), pid, frozenset({pid})) for pid in workers]


class Life(NamedTuple):
    """One host, as it and the referee have written it down, and what is to be said of it."""

    name: str
    facts: list[Fact]
    kills: Sequence[Kill] = ()
    verdict: str = ""
    end: Sequence[Fact] = tuple(counter(0))


GOOD = [
    Life("a task that ended", [order(1), begin(1), result(1)]),
    Life("a task of a killed host", [order(1), begin(1)], [HOST_KILLED]),
    Life(
        "a task that was tried again",
        [order(1, retries=1), begin(1), begin(1, WORKER_2), result(1)],
        killed(WORKER_1),
    ),
    Life(
        "a failure",
        [order(1, "raising"), begin(1), end(1, "exception", type="ValueError", text="1")],
    ),
    Life("a timeout", [order(1, "too long"), begin(1), end(1, "timeout")]),
    Life("cancelled by its client", [order(1), cancel(1), end(1, "cancelled")]),
    Life(
        "cancelled by the close",
        [order(1), CLOSE, order(2), end(1, "cancelled"), end(2, "cancelled")],
    ),
    Life("killed with its worker", [order(1), begin(1), crashed(1)], killed(WORKER_1)),
    Life("killed before it began", [order(1), crashed(1)], killed(WORKER_1)),
    Life(
        "killed with every worker",
        [order(1, retries=1), begin(1), crashed(1, WORKER_2)],
        killed(WORKER_1, WORKER_2),
    ),
    Life("all additions", [ADDED, *added_by_task(1)], end=counter(2)),
    Life(
        "an addition that was cut off",
        [order(1, "adding"), cancel(1), end(1, "cancelled")],
        end=counter(1),
    ),
    Life(
        "an addition under way when its host was killed",
        [order(1, "adding"), *counter(1)],
        [HOST_KILLED],
        end=[],
    ),
    Life("additions under way", [ADDED, *counter(3, adders=2), ADDED, ADDED], end=counter(3)),
    Life("a noted addition under way", [LOOK, ADDED, counter(1)[1]], end=counter(1)),
    Life("a counter of each engine", [ADDED, *counter(1), OPEN]),
]

LOST = [
    Life("a task without an end", [order(1), begin(1)], verdict="never ended"),
    Life(
        "a task with two ends", [order(1), begin(1), result(1), result(1)], verdict="ended 2 times"
    ),
    Life(
        "a task that ran too often",
        [order(1, retries=1), begin(1), begin(1, WORKER_2), begin(1, WORKER_3), result(1)],
        killed(WORKER_1, WORKER_2),
        verdict="ran 3 times",
    ),
    Life(
        "a task that ran twice in a worker",
        [order(1, retries=1), begin(1), begin(1), result(1)],
        killed(WORKER_1),
        verdict="ran twice in one worker",
    ),
]

WRONG = [
    Life(
        "a wrong result", [order(1), begin(1), end(1, "result", facts=[8])], verdict="ended wrongly"
    ),
    Life("a result of nothing", [order(1), result(1)], verdict="never ran"),
    Life(
        "a result in place of a failure",
        [order(1, "raising"), begin(1), end(1, "result", facts=[None])],
        verdict="ended wrongly",
    ),
    Life(
        "a wrong exception",
        [order(1), begin(1), end(1, "exception", type="ValueError", text="1")],
        verdict="ended wrongly",
    ),
    Life(
        "another task's exception",
        [order(1, "raising"), begin(1), end(1, "exception", type="ValueError", text="2")],
        verdict="ended wrongly",
    ),
    Life("a timeout of nobody", [order(1), begin(1), end(1, "timeout")], verdict="ended wrongly"),
    Life("cancelled by nobody", [order(1), end(1, "cancelled")], verdict="ended wrongly"),
    Life(
        "cancelled beside one that was",
        [order(1), order(2), cancel(2), end(1, "cancelled"), end(2, "cancelled")],
        verdict="ended wrongly",
    ),
    Life(
        "cancelled before anybody asked",
        [order(1), end(1, "cancelled"), cancel(1)],
        verdict="ended wrongly",
    ),
    Life(
        "cancelled by the close of an earlier engine",
        [CLOSE, OPEN, order(1), end(1, "cancelled")],
        verdict="ended wrongly",
    ),
    Life("an end of no kind", [order(1), begin(1), end(1, "gone")], verdict="ended wrongly"),
    Life("crashed without a kill", [order(1), begin(1), crashed(1)], verdict="was not killed"),
    Life(
        "crashed with an idle worker",
        [order(1), begin(1), crashed(1)],
        [Kill((WORKER, WorkerPhase.IDLE), WORKER_1)],
        verdict="was not killed",
    ),
    Life(
        "crashed with another's worker",
        [order(1), begin(1), crashed(1, WORKER_2)],
        killed(WORKER_1, WORKER_2),
        verdict="ended as crashed with worker",
    ),
    Life(
        "tried again without a kill",
        [order(1, retries=1), begin(1), begin(1, WORKER_2), result(1)],
        verdict="was not killed",
    ),
    Life(
        "two tasks crashed with a worker",
        [order(1), order(2), begin(1), crashed(1), crashed(2)],
        killed(WORKER_1),
        verdict=r"tasks \[1, 2\] were cut off in the one worker",
    ),
    Life(
        "one crashed and one tried again with a worker",
        [order(1, retries=1), order(2), begin(1), crashed(2), begin(1, WORKER_2), result(1)],
        killed(WORKER_1),
        verdict=r"tasks \[1, 2\] were cut off in the one worker",
    ),
    Life(
        "an addition lost", [ADDED, *added_by_task(1)], end=counter(1), verdict="the counter is 1"
    ),
    Life(
        "an addition too many",
        [ADDED, *added_by_task(1)],
        end=counter(3),
        verdict="the counter is 3",
    ),
    Life(
        "an addition of a task that failed",
        [order(1, "adding"), begin(1), end(1, "exception", type="ContextError", text="")],
        end=counter(1),
        verdict="the counter is 1",
    ),
    Life(
        "an addition lost for a while",
        [ADDED, *counter(0, 2)],
        end=counter(1),
        verdict="the counter is 0",
    ),
    Life(
        "more additions than are under way",
        [ADDED, *counter(4, 2)],
        end=counter(1),
        verdict="the counter is 4",
    ),
    Life(
        "a later task's addition",
        [*counter(1), *added_by_task(1)],
        end=counter(1),
        verdict="the counter is 1",
    ),
    Life(
        "an addition lost in a killed host",
        [ADDED, *counter(0, 2)],
        [HOST_KILLED],
        verdict="the counter is 0",
        end=[],
    ),
    Life(
        "a counter that nobody looked at",
        [*counter(0), OPEN, ADDED],
        end=[],
        verdict="never looked",
    ),
    Life(
        "what a process has noted",
        [{"what": "wrong", "text": "it reads differently"}],
        verdict="reads",
    ),
]

LEFT = [
    Life(
        "what a host has noted", [{"what": "left", "text": "a descriptor"}], verdict="a descriptor"
    ),
]


def settle(life: Life) -> Account:
    host_died = HOST_KILLED in life.kills
    return account_for([OPEN, *life.facts, *life.end], life.kills, host_died=host_died)


@pytest.mark.parametrize("life", GOOD, ids=lambda life: life.name)
def test_what_is_right_is_good(life: Life) -> None:
    account = settle(life)
    assert account.good, account


@pytest.mark.parametrize(
    ("kind", "life"),
    [
        (kind, life)
        for kind, lives in [("lost", LOST), ("wrong", WRONG), ("left", LEFT)]
        for life in lives
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_each_verdict_can_be_given(kind: str, life: Life) -> None:
    account = settle(life)
    assert not account.good
    (text,) = [*account.lost, *account.wrong, *account.left]
    assert re.search(life.verdict, text)
    assert getattr(account, kind) == [text]


# ---- what is left of a host


@pytest.fixture
def bout(tmp_path: Path) -> referee.Bout:
    """One of a host that comes to its own end, and has done nothing."""
    number = referee.FATES.index(None)
    bout = referee.Bout(1, number, Tally(), tmp_path)
    bout.prepare()
    notes = Journal(str(directory(tmp_path) / "journal"))
    for fact in [OPEN, *counter(0)]:
        notes.note(**fact)
    notes.close()
    (directory(tmp_path) / "printed").touch()
    return bout


def directory(scratch: Path) -> Path:
    return scratch / f"bout-{referee.FATES.index(None)}"


def judge(bout: referee.Bout, scratch: Path, program: str = "true") -> Account:
    """What the referee says of a host that was this shell program."""
    with (directory(scratch) / "printed").open("wb") as printed:
        host = subprocess.Popen(
            ["sh", "-c", program],
            cwd=directory(scratch) / "cwd",
            stdout=printed,
            start_new_session=True,
        )
    host.wait(60)
    try:
        bout.judge(host, Killer(host.pid, directory(scratch) / "journal", Random(1)))
    finally:
        for pid in processes.in_session(host.pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not processes.in_session(host.pid), "the host's session to be gone")
    return bout.tally.account


def test_a_host_that_leaves_nothing_is_good(bout: referee.Bout, tmp_path: Path) -> None:
    account = judge(bout, tmp_path)
    assert account.good, account
    assert not directory(tmp_path).exists()


def test_what_a_host_prints_is_wrong(bout: referee.Bout, tmp_path: Path) -> None:
    assert "hello" in "".join(judge(bout, tmp_path, "echo hello").wrong)


def test_a_status_of_failure_is_wrong(bout: referee.Bout, tmp_path: Path) -> None:
    assert "status 3" in "".join(judge(bout, tmp_path, "exit 3").wrong)


@pytest.mark.parametrize("name", ["cwd", "tmp", "home"])
def test_a_file_is_left(bout: referee.Bout, tmp_path: Path, name: str) -> None:
    assert f"file 'x' in the host's {name}" in judge(bout, tmp_path, f"touch ../{name}/x").left


def test_a_journal_that_is_not_good_is_noticed(bout: referee.Bout, tmp_path: Path) -> None:
    notes = Journal(str(directory(tmp_path) / "journal"))
    notes.note(**order(1))
    notes.close()
    assert "never ended" in "".join(judge(bout, tmp_path).lost)


def test_a_process_that_stays_is_a_hang(
    bout: referee.Bout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referee, "PATIENCE", 0.1)
    monkeypatch.setattr(referee, "describe", lambda host, directory: "")
    with pytest.raises(Hang, match="processes of the host's session to be gone"):
        judge(bout, tmp_path, "sleep 1000 >/dev/null &")


# ---- the exit status


Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`main` with bouts that do only what they are given to do, all cells of the table filled."""
    spec = importlib.util.spec_from_file_location("chaos_main", HERE / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    chaos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chaos)
    monkeypatch.setattr(sys, "argv", ["chaos", "--seed", "1"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(leaks, "PATIENCE", 0.1)
    (tmp_path / "shm").mkdir()  # not the machine's, where other runs look as well
    monkeypatch.setattr(chaos, "SHM", str(tmp_path / "shm"))

    def call(bouts: Callable[[Tally], None], cells: Sequence[Cell] = CELLS) -> int:
        def run_bouts(options: object, tally: Tally, scratch: Path) -> None:
            tally.add([Kill(cell, 1 << 30) for cell in cells], Account(), 0.0)
            bouts(tally)

        monkeypatch.setattr(chaos, "_run_bouts", run_bouts)
        return int(chaos.main())

    return call


@pytest.fixture(autouse=True)
def shared_pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of shared pages there are: not the machine's, where others come and go."""
    pages = [1 << 30]
    for name in ("most_unaccounted_bytes", "unaccounted_bytes"):
        monkeypatch.setattr(leaks, name, lambda: pages[0])
    return pages


def test_a_good_run_ends_with_0(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda tally: None) == 0
    assert "0 lost, 0 wrong, 0 left" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["lost", "wrong", "left"])
def test_what_is_not_good_fails_the_run(
    run: Run, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert run(lambda tally: tally.add([], Account(**{kind: ["this"]}), 0.0)) == 1
    printed = capsys.readouterr().out
    assert f"1 {kind}" in printed
    assert f"{kind.upper()}: this" in printed


def test_a_hang_fails_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def hang(tally: Tally) -> None:
        raise Hang("it hangs")

    assert run(hang) == 1
    assert "HANG: it hangs" in capsys.readouterr().out


def test_an_empty_cell_fails_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda tally: None, cells=CELLS[1:]) == 1
    assert "EMPTY: no worker was killed while starting" in capsys.readouterr().out


def test_a_page_that_is_left_fails_the_run(
    run: Run, capsys: pytest.CaptureFixture[str], shared_pages: list[int]
) -> None:
    def leave(tally: Tally) -> None:
        shared_pages[0] += leaks.SHMEM_NOISE + 4096

    assert run(leave) == 1
    assert "bytes of shared pages" in capsys.readouterr().out


def test_a_descriptor_that_is_left_fails_the_run(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = []
    try:
        assert run(lambda tally: kept.append(os.memfd_create("left"))) == 1
    finally:
        for fd in kept:
            os.close(fd)
    assert "memfd:left" in capsys.readouterr().out


def test_a_name_that_is_left_fails_the_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = tmp_path / "shm" / "theus-left"
    assert run(lambda tally: name.touch()) == 1
    assert f"LEFT: {name}" in capsys.readouterr().out
