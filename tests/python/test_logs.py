"""ctx.log reaches the host's logging."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import EngineFactory
from jobs import wait_for_file
from polling import until
from theus import TheusEngine, process


def speak(ctx: Any, text: str) -> None:
    ctx.log.debug("unheard")
    ctx.log.warning("%s from %d", text, ctx.worker.index)


class Collected(logging.Handler):
    """Collects records and tells when there are enough."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.complete = threading.Event()
        self._expected = expected

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if len(self.records) >= self._expected:
            self.complete.set()


@pytest.mark.parametrize("how", ["run", "submit", "map"])
def test_records_of_workers_arrive(engine: TheusEngine, how: str) -> None:
    logger = logging.getLogger(f"{__name__}.speak")
    handler = Collected(1)
    logger.addHandler(handler)
    try:
        if how == "run":
            engine.run(speak, text="hello")
        elif how == "submit":
            engine.submit(speak, "hello").result(30)
        else:
            list(engine.map(speak, ["hello"]))
        assert handler.complete.wait(30)
    finally:
        logger.removeHandler(handler)
    (record,) = handler.records
    assert record.getMessage().startswith("hello from ")
    assert record.levelno == logging.WARNING
    assert record.theus_worker in (0, 1)  # type: ignore[attr-defined]


def leave_a_thread(ctx: Any, gate: str) -> None:
    def speak_later() -> None:
        wait_for_file(gate)
        ctx.log.warning("later")

    ctx.log.warning("now")
    threading.Thread(target=speak_later).start()


def test_records_of_a_thread_that_is_left_are_those_of_its_task(
    make_engine: EngineFactory, tmp_path: Path
) -> None:
    engine = make_engine(workers=1)
    logger = logging.getLogger(f"{__name__}.leave_a_thread")
    handler = Collected(2)
    logger.addHandler(handler)
    gate = tmp_path / "gate"
    try:
        engine.run(leave_a_thread, str(gate))
        engine.run(speak, "in between")
        gate.touch()
        assert handler.complete.wait(30)
    finally:
        logger.removeHandler(handler)
    tasks = {record.theus_task for record in handler.records}  # type: ignore[attr-defined]
    assert len(tasks) == 1


def test_nothing_is_lost_when_the_engine_closes(engine: TheusEngine) -> None:
    logger = logging.getLogger(f"{__name__}.speak")
    handler = Collected(20)
    logger.addHandler(handler)
    try:
        for i in range(20):
            engine.submit(speak, str(i))
        engine.shutdown()
    finally:
        logger.removeHandler(handler)
    assert len(handler.records) == 20


def test_host_processes_log_under_the_same_name(
    engine: TheusEngine, caplog: pytest.LogCaptureFixture
) -> None:
    @process
    def in_host(ctx: Any) -> None:
        ctx.log.warning("here")

    engine.run(in_host)
    assert caplog.records[0].message == "here"
    assert caplog.records[0].name.endswith("in_host")


def test_warnings_of_the_pool_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with TheusEngine(workers=1, preload=["numpy", "no_such_module"]) as engine:
        assert engine.run(pow, 2, 3) == 8
        assert list(engine.map(abs, [-1])) == [1]
    (record,) = [r for r in caplog.records if r.name == "theus"]
    assert "no_such_module" in record.message


@contextmanager
def filter_that_raises(error: BaseException) -> Iterator[None]:
    """Records of `speak` are looked at by a filter that raises."""

    def refuse(record: logging.LogRecord) -> bool:
        raise error

    logger = logging.getLogger(f"{__name__}.speak")
    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)


def test_a_filter_that_raises_costs_no_other_result(
    engine: TheusEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters run on the thread that resolves all futures."""
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    with filter_that_raises(RuntimeError("on purpose")):
        engine.submit(speak, "hello").result(30)
        until(lambda: bool(told), "the error to be told")
    assert engine.submit(pow, 2, 3).result(30) == 8
    assert [str(what.exc_value) for what in told] == ["on purpose"]


def test_a_filter_that_raises_does_not_keep_an_engine_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of logs is forwarded while the engine is closed."""
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    with filter_that_raises(RuntimeError("on purpose")), TheusEngine(workers=1) as engine:
        engine.run(speak, "hello")
    assert [str(what.exc_value) for what in told] == ["on purpose"]
    told.clear()  # tracebacks refer to the engine


def test_telling_of_what_was_raised_may_fail_as_well(
    engine: TheusEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a stderr the default hook raises."""
    told = []

    def fail(what: threading.ExceptHookArgs) -> None:
        told.append(what.exc_type)
        raise ValueError("closed")

    monkeypatch.setattr(threading, "excepthook", fail)
    with filter_that_raises(SystemExit()):
        engine.submit(speak, "hello").result(30)
        until(lambda: bool(told), "the end of a thread to be told")
    assert engine.submit(pow, 2, 3).result(30) == 8
