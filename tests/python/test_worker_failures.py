"""What a worker makes of what goes wrong in a task."""

from __future__ import annotations

import pickle
import types
from collections.abc import Iterator
from typing import Any

import pytest

from fake_host import PICKLE, Host, Worker, call_input, inline


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Host() as host:
        yield host.spawn()[0]


class TestFailures:
    @pytest.mark.parametrize(
        ("raised", "kind"),
        [
            (ValueError("bad", 3), "ValueError"),
            (KeyError("k"), "KeyError"),
            (UnicodeDecodeError("utf-8", b"x", 0, 1, "why"), "UnicodeDecodeError"),
        ],
    )
    def test_exceptions_arrive_as_themselves(
        self, worker: Worker, raised: Exception, kind: str
    ) -> None:
        def fail(ctx: Any, error: Exception) -> None:
            raise error

        name, message, trace, exception = worker.failure(worker.call(fail, raised))
        assert (name, message) == (kind, str(raised))
        assert type(exception) is type(raised)
        assert exception.args == raised.args
        assert "raise error" in trace
        assert "worker/tasks.py" not in trace, "the traceback begins in the user's code"

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
    def test_what_would_end_a_process_ends_its_task(
        self, worker: Worker, kind: type[BaseException]
    ) -> None:
        def leave(ctx: Any) -> None:
            raise kind(3)

        name, message, _, exception = worker.failure(worker.call(leave))
        assert (name, message, exception) == (kind.__name__, "3", None)
        assert worker.run(lambda ctx: 1) == 1

    def test_exceptions_that_do_not_load_again(self, worker: Worker) -> None:
        def fail(ctx: Any) -> None:
            class Odd(Exception):
                def __init__(self, a: int, b: int) -> None:
                    super().__init__("odd")

            raise Odd(1, 2)

        name, message, _, exception = worker.failure(worker.call(fail))
        assert name.endswith("Odd")
        assert (message, exception) == ("odd", None)

    def test_exceptions_that_hold_what_cannot_be_pickled(self, worker: Worker) -> None:
        def fail(ctx: Any) -> None:
            import threading

            raise ValueError(threading.Lock())

        assert worker.failure(worker.call(fail))[3] is None

    def test_exceptions_whose_methods_fail(self, worker: Worker) -> None:
        def fail(ctx: Any) -> None:
            class Nasty(ValueError):
                def __str__(self) -> str:
                    raise RuntimeError("no text")

                __repr__ = __str__

                def __reduce__(self) -> Any:
                    raise SystemExit

                def add_note(self, note: str) -> None:
                    raise RuntimeError("no note")

            raise Nasty

        name, message, _, exception = worker.failure(worker.call(fail))
        assert name.endswith("Nasty")
        assert "cannot be had" in message
        assert exception is None

    def test_texts_are_bounded(self, worker: Worker) -> None:
        def fail(ctx: Any) -> None:
            raise ValueError("ü" * 10_000_000 + "end")

        _, message, trace, exception = worker.failure(worker.call(fail))
        assert len(message.encode()) <= 4 << 10
        assert message.endswith("end")
        assert len(trace.encode()) <= 32 << 10
        assert len(str(exception)) > 10_000_000, "the exception itself is whole"

    def test_endless_recursion(self, worker: Worker) -> None:
        def deep(ctx: Any) -> None:
            deep(ctx)

        assert worker.failure(worker.call(deep))[0] == "RecursionError"
        assert worker.run(lambda ctx: 1) == 1

    def test_out_of_memory(self, worker: Worker) -> None:
        function = worker.define(lambda ctx: bytearray(1 << 60))
        assert worker.failure(worker.submit(function, call_input()))[0] == "MemoryError"

    @pytest.mark.parametrize(
        ("result", "path"),
        [
            ("{'a': [1, threading.Lock()]}", "result['a'][1]"),
            ("types.SimpleNamespace(conn=threading.Lock())", "result.conn"),
            ("threading.Lock()", "_thread.lock"),
        ],
    )
    def test_a_result_that_cannot_be_pickled(self, worker: Worker, result: str, path: str) -> None:
        def give(ctx: Any, code: str) -> Any:
            import threading
            import types

            return eval(code, {"threading": threading, "types": types})

        name, message, _, _ = worker.failure(worker.call(give, result))
        assert name == "TypeError"
        assert path in message
        assert "_thread.lock" in message
        assert worker.run(lambda ctx: 1) == 1

    def test_a_result_nested_too_deeply(self, worker: Worker) -> None:
        def nest(ctx: Any) -> Any:
            nested: list[Any] = []
            for _ in range(50_000):
                nested = [nested]
            return nested

        assert worker.failure(worker.call(nest))[0] == "TypeError"
        assert worker.run(lambda ctx: 1) == 1

    def test_arguments_that_cannot_be_loaded(self, worker: Worker) -> None:
        stream = pickle.dumps(("call", (types.SimpleNamespace(),), {}))
        broken = stream.replace(b"SimpleNamespace", b"NoSuchNamespace")
        task = worker.submit(worker.define(lambda ctx, x: 1), inline(PICKLE, broken))
        assert worker.failure(task)[0] == "AttributeError"
