"""Which function a task means: imported, by value, asked for, or named by another language."""

from __future__ import annotations

import json
import pickle
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import pytest

from fake_host import (
    FETCH,
    FETCHED,
    FORGET,
    JSON,
    NONE,
    PICKLE,
    RAW,
    RESULT,
    Host,
    Worker,
    call_input,
    inline,
    text,
)
from theus.code_hash import code_hash


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Host() as host:
        yield host.spawn()[0]


class TestOtherLanguages:
    def test_json_in_and_out(self, worker: Worker, tmp_path: Path) -> None:
        module(
            worker,
            tmp_path,
            "job",
            """
            import numpy as np
            def add(ctx, a, b=1):
                return {"sum": np.int64(a + b), "list": np.arange(3), "flag": np.True_}
            def nan(): return float("nan")
            """,
        )
        found = self.call(worker, "job:add", inline(JSON, b'{"a": 4}'), JSON)
        assert json.loads(found) == {"sum": 5, "list": [0, 1, 2], "flag": True}
        kind, message, _, _ = worker.failure(
            worker.submit(0, inline(NONE), target="job:nan", out_codec=JSON)
        )
        assert kind == "TypeError"
        assert "finite" in message

    def test_raw_bytes_in_and_out(self, worker: Worker, tmp_path: Path) -> None:
        module(worker, tmp_path, "job", "def flip(data): return bytes(reversed(data))")
        assert self.call(worker, "job:flip", inline(RAW, b"abc"), RAW) == b"cba"

    def test_no_input(self, worker: Worker) -> None:
        assert self.call(worker, "os:getpid", inline(NONE), JSON) == str(worker.pid).encode()

    @pytest.mark.parametrize(
        ("target", "kind"),
        [
            ("nowhere:f", "ModuleNotFoundError"),
            ("os:no_such", "AttributeError"),
            ("os", "ValueError"),
            ("os:path", "TypeError"),
        ],
    )
    def test_targets_that_are_not_there(self, worker: Worker, target: str, kind: str) -> None:
        assert worker.failure(worker.submit(0, inline(NONE), target=target))[0] == kind

    def call(self, worker: Worker, target: str, value: bytes, codec: int) -> bytes:
        message = worker.answer(RESULT, worker.submit(0, value, target=target, out_codec=codec))
        found = message.value()
        assert found.codec == codec
        return bytes(worker.spans(found)[0])


def module(worker: Worker, directory: Path, name: str, source: str) -> None:
    """Make a module that the worker can import."""
    (directory / f"{name}.py").write_text(textwrap.dedent(source))
    worker.run(lambda ctx, path: __import__("sys").path.append(path), str(directory))


class TestFunctions:
    SOURCE = "def f(ctx): return 'imported'\n"

    def record(self, source: str, spare: Any) -> Any:
        namespace: dict[str, Any] = {}
        exec(compile(textwrap.dedent(source), "lib.py", "exec", dont_inherit=True), namespace)
        return ("lib", "f", code_hash(namespace["f"]), spare, True)

    def test_the_same_code_is_imported(self, worker: Worker, tmp_path: Path) -> None:
        module(worker, tmp_path, "lib", self.SOURCE)
        spare = cloudpickle.dumps(lambda ctx: "by value")
        function = worker.define(None, self.record(self.SOURCE, spare))
        assert worker.result(worker.submit(function, call_input())) == "imported"

    @pytest.mark.parametrize("source", ["def f(ctx): return 'other'", "raise SystemExit(3)"])
    def test_other_code_is_taken_by_value(
        self, worker: Worker, tmp_path: Path, source: str
    ) -> None:
        module(worker, tmp_path, "lib", source)
        spare = cloudpickle.dumps(lambda ctx: "by value")
        function = worker.define(None, self.record(self.SOURCE, spare))
        assert worker.result(worker.submit(function, call_input())) == "by value"

    def test_with_neither_both_reasons_are_told(self, worker: Worker, tmp_path: Path) -> None:
        module(worker, tmp_path, "lib", "def f(ctx): return 'other'")
        function = worker.define(None, self.record(self.SOURCE, b"no pickle"))
        kind, message, _, _ = worker.failure(worker.submit(function, call_input()))
        assert kind == "ImportError"
        assert "other code" in message
        assert "pickle cannot be loaded" in message

    def test_code_is_asked_for_when_it_is_missing(self, worker: Worker) -> None:
        record = inline(PICKLE, pickle.dumps((None, "f", "", cloudpickle.dumps(int), False)))
        task = worker.submit(4711, call_input("12"))
        question = worker.expect(FETCH)
        assert question.take("QB") == (task, 3)
        assert question.text() == ""
        assert question.take("Q") == 4711
        worker.send(FETCHED, question.id, b"\0" + record)
        assert worker.result(task) == 12
        assert worker.result(worker.submit(4711, call_input("13"))) == 13, "kept"
        worker.send(FORGET, 4711)
        worker.submit(4711, call_input("14"))
        question = worker.expect(FETCH)
        worker.send(FETCHED, question.id, b"\3" + text("unknown"))

    def test_main_is_not_the_zygote(self, worker: Worker) -> None:
        assert worker.run(lambda ctx: hasattr(sys.modules["__main__"], "__file__")) is False
        assert worker.run(lambda ctx: sys.argv) == [""]
