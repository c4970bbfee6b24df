"""What a worker makes of a task: calls, functions, results, failures."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_host import (
    CANCEL,
    CANCELLED,
    EXIT,
    FETCH,
    FETCHED,
    JSON,
    LOG,
    PICKLE,
    RESULT,
    STATE,
    TASK,
    Host,
    Message,
    Worker,
    call_input,
    inline,
    text,
)
from polling import until


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Host() as host:
        yield host.spawn()[0]


class TestCalls:
    def test_a_task_that_comes_while_the_one_before_waits_for_an_answer(
        self, worker: Worker
    ) -> None:
        function = worker.define(lambda ctx, i: (i, ctx.heavy.get("x")) if i == 1 else (i, None))
        first = worker.submit(function, call_input(1))
        question = worker.expect(FETCH)
        second = worker.submit(function, call_input(2))  # ahead of the answer, in the same stream
        worker.send(FETCHED, question.id, b"\1" + text("[]"))
        assert worker.result(first) == (1, None)
        assert worker.result(second) == (2, None)

    def test_context_and_arguments(self, worker: Worker) -> None:
        def scale(ctx: Any, factor: int, offset: int = 1) -> Any:
            return factor, offset, dict(ctx.input), ctx.worker.index

        assert worker.run(scale, 3) == (3, 1, {"factor": 3}, 0)
        assert worker.run(scale, factor=3, extra=4) == (3, 1, {"factor": 3, "extra": 4}, 0)
        assert worker.run(lambda ctx, **rest: rest, a=1, b=2) == {"a": 1, "b": 2}
        assert worker.run(lambda ctx: ctx.input.a, a=1) == 1
        assert worker.run(lambda ctx: ctx.domain.a, a=1) == 1

    def test_a_context_cannot_be_copied(self, worker: Worker) -> None:
        def attempt(ctx: Any) -> str:
            import copy

            try:
                copy.deepcopy({"of a task": ctx})
            except TypeError as error:
                return str(error)
            return "it was copied"

        assert worker.run(attempt).startswith("ctx belongs to the call")
        assert worker.run(lambda _: 3) == 3  # a copy would have unmapped the status page

    def test_a_context_is_gone_with_its_task(self, worker: Worker) -> None:
        """At once and not when garbage is collected: it may hold the last view of an array."""

        def look(ctx: Any) -> None:
            import gc
            import weakref

            class Watched:
                pass

            gc.disable()
            kept = ctx.input, ctx.heavy, ctx.domain, ctx.state, ctx.log, ctx.worker, ctx.rng
            assert len(kept) == 7
            watched = Watched()
            ctx._args = (watched,)
            looking.append(weakref.ref(watched))

        looking: list[Any] = []

        def gone(ctx: Any) -> bool:
            import gc

            gc.enable()
            return bool(ctx is not None and looking[0]() is None)

        def both(ctx: Any, first: bool) -> Any:
            return look(ctx) if first else gone(ctx)

        function = worker.define(both)
        assert worker.result(worker.submit(function, call_input(True))) is None
        assert worker.result(worker.submit(function, call_input(False))) is True

    def test_a_function_without_context_gets_its_arguments(self, worker: Worker) -> None:
        function = worker.define(lambda a, b: (a, b), passes_ctx=False)
        assert worker.result(worker.submit(function, call_input(1, b=2))) == (1, 2)
        function = worker.define(pow, passes_ctx=False)
        assert worker.result(worker.submit(function, call_input(2, 5))) == 32

    def test_an_async_function_is_run_to_its_end(self, worker: Worker) -> None:
        async def add(ctx: Any, a: int, b: int) -> int:
            import asyncio

            await asyncio.sleep(0)
            return a + b

        assert worker.run(add, 1, 2) == 3

    def test_many_tasks_end_in_order(self, worker: Worker) -> None:
        function = worker.define(lambda ctx, i: i * i)
        tasks = [worker.submit(function, call_input(i)) for i in range(200)]
        assert [worker.result(task) for task in tasks] == [i * i for i in range(200)]

    def test_random_numbers_belong_to_the_task(self, worker: Worker) -> None:
        from theus.context import task_generator

        function = worker.define(lambda ctx: ctx.rng.random())
        first, again, other = (
            worker.result(worker.submit(function, call_input(), rng_key=key)) for key in (1, 1, 2)
        )
        assert first == again == task_generator(12345, 1).random()
        assert first != other

    def test_a_batch(self, worker: Worker) -> None:
        def draw(ctx: Any, i: int) -> Any:
            if i == 13:
                raise KeyError("unlucky")
            return i + ctx.rng.random()

        def run(first: int, *items: int) -> Any:
            batch = ("batch", first, [(i,) for i in items])
            return worker.result(worker.submit(function, inline(PICKLE, pickle.dumps(batch))))

        function = worker.define(draw)
        kind, whole, failure = run(0, 0, 1, 2, 3)
        assert (kind, failure) == ("batch", None)
        assert run(0, 0, 1)[1] + run(2, 2, 3)[1] == whole, "chunks do not change results"
        _, good, failure = run(0, 0, 13, 2)
        assert good == whole[:1]
        assert (failure.type, failure.message) == ("KeyError", "'unlucky'")
        assert "raise KeyError" in failure.traceback
        assert isinstance(pickle.loads(failure.exception), KeyError)

    def test_a_result_that_cannot_be_pickled_fails_its_item_only(self, worker: Worker) -> None:
        function = worker.define(lambda ctx, i: (j for j in ()) if i == 1 else i)
        batch = ("batch", 0, [(0,), (1,), (2,)])
        task = worker.submit(function, inline(PICKLE, pickle.dumps(batch)))
        _, good, failure = worker.result(task)
        assert good == [0]
        assert "generator" in failure.message


class TestFrames:
    def test_threads_of_a_task_may_ask_at_once(self, worker: Worker) -> None:
        def ask(ctx: Any, count: int) -> list[str]:
            import threading

            texts = [""] * count

            def one(i: int) -> None:
                ctx.log.info("%d", i)
                try:
                    ctx.heavy[f"key{i}"]
                except KeyError as error:
                    texts[i] = str(error)

            threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return texts

        task = worker.call(ask, 8)
        questions: list[tuple[int, str]] = []
        while len(questions) < 8:
            message = worker.connection.receive()
            assert message is not None
            if message.kind == FETCH:
                message.take("QB")
                questions.append((message.id, message.text()))
        for number, key in reversed(questions):
            answer = b"\1" + text(json.dumps([f"{key}_of_host"]))
            worker.send(FETCHED, number, answer)
        message = worker.connection.receive()
        while message is not None and message.kind == LOG:
            message = worker.connection.receive()
        assert message is not None
        assert message.take("Q") > 0
        texts = worker.load(message)
        assert all(f"key{i}_of_host" in found for i, found in enumerate(texts))
        assert message.id == task

    def test_a_thread_that_outlives_its_task_does_not_block_the_next(self, worker: Worker) -> None:
        def leave(ctx: Any) -> None:
            import threading

            threading.Thread(target=lambda: ctx.heavy.get("late"), daemon=True).start()

        worker.call(leave)
        kinds: dict[int, Message] = {}
        while len(kinds) < 2:
            message = worker.connection.receive()
            assert message is not None
            kinds[message.kind] = message
        assert set(kinds) == {RESULT, FETCH}
        task = worker.call(lambda ctx: 5)  # while the thread waits
        assert worker.result(task) == 5
        worker.send(FETCHED, kinds[FETCH].id, b"\3" + text("this task has ended"))
        assert worker.run(lambda ctx: 6) == 6

    def test_a_task_that_has_not_started_is_cancelled(self, worker: Worker, tmp_path: Path) -> None:
        fifo = str(tmp_path / "fifo")
        os.mkfifo(fifo)
        running = worker.call(lambda ctx, path: Path(path).read_text(), fifo)
        second, third = worker.call(lambda ctx: 2), worker.call(lambda ctx: 3)
        until(lambda: worker.status() == (2, running), "running")
        worker.send(CANCEL, second)
        worker.send(CANCEL, running)  # too late: its result is the answer
        Path(fifo).write_text("done")
        assert worker.result(running) == "done"
        worker.expect(CANCELLED, second)
        assert worker.result(third) == 3
        worker.send(CANCEL, third)
        assert worker.run(lambda ctx: 4) == 4

    def test_a_frame_that_comes_in_pieces(self, worker: Worker) -> None:
        function = worker.define(lambda ctx, x: len(x))
        value = call_input("x" * 50_000)
        head = struct.pack("<QQQBBH", function, 1, 7, PICKLE, 0, 0)
        frame = head + text("") + value
        data = struct.pack("<IHHQ", len(frame), TASK, 0, 99) + frame
        for start in range(0, len(data), 7919):
            worker.connection.socket.sendall(data[start : start + 7919])
        assert worker.result(99) == 50_000

    def test_the_largest_inline_values(self, worker: Worker) -> None:
        for size in (59_000, 60_000, 61_000, 70_000):
            assert worker.run(lambda ctx, n: "x" * n, size) == "x" * size

    def test_exit(self, worker: Worker) -> None:
        worker.send(EXIT, 0)
        worker.wait_until_dead()
        assert worker.host.connection.expect(6, worker.number).take("II")[1] == 0

    def test_log_records(self, worker: Worker) -> None:
        def work(ctx: Any) -> None:
            ctx.log.warning("%d of %d", 3, 4)
            try:
                1 / 0  # noqa: B018
            except ZeroDivisionError:
                ctx.log.exception("failed")
            ctx.log.debug("x" * 100_000)

        task = worker.call(work)
        record = worker.expect(LOG, task)
        assert record.take("I") == 30
        assert record.text().endswith("task")
        assert record.text() == "3 of 4"
        record = worker.expect(LOG, task)
        assert record.take("I") == 40
        record.text()
        assert "ZeroDivisionError" in record.text()
        assert len(worker.expect(LOG, task).payload) < 10_000
        assert worker.result(task) is None

    def test_state_is_fetched_when_it_is_looked_at(self, worker: Worker) -> None:
        def look(ctx: Any) -> Any:
            return ctx.state.version, ctx.state["config"]["rate"], ctx.state.to_dict()

        task = worker.call(look)
        question = worker.expect(FETCH)
        assert question.take("QB") == (task, 2)
        assert question.text() == ""
        worker.send(FETCHED, question.id, b"\0" + inline(STATE, self.state()))
        assert worker.result(task) == (1, 0.5, {"config": {"rate": 0.5}, "domain": {"n": 3}})

    def test_state_for_which_there_is_no_room_is_asked_for_once_more(self, worker: Worker) -> None:
        task = worker.call(lambda ctx: ctx.state["config"]["rate"])
        full = {"Asked": 70_000, "InUse": 5, "Limit": 7, "Source": "heap=", "Holders": []}
        refusal = text(json.dumps({"message": "the heap is full: …", "full": full}))
        worker.send(FETCHED, worker.expect(FETCH).id, b"\4" + refusal)
        question = worker.expect(FETCH)  # when it has collected its garbage
        worker.send(FETCHED, question.id, b"\0" + inline(STATE, self.state()))
        assert worker.result(task) == 0.5
        task = worker.call(lambda ctx: ctx.state["config"]["rate"])
        for _ in range(2):
            worker.send(FETCHED, worker.expect(FETCH).id, b"\4" + refusal)
        assert worker.failure(task)[:2] == ("theus.errors.HeapFull", "the heap is full: …")

    def test_the_domain_alone_is_fetched_for_it(self, worker: Worker) -> None:
        task = worker.call(lambda ctx: (ctx.domain.a, ctx.domain["n"]), a=1)
        question = worker.expect(FETCH)
        assert question.take("QB") == (task, 2)
        assert question.text() == "domain"
        worker.send(FETCHED, question.id, b"\0" + inline(STATE, self.state()))
        assert worker.result(task) == (1, 3)

    def state(self) -> bytes:
        leaves = ((("config", "rate"), b"0.5"), (("domain", "n"), b"3"))
        encoded = struct.pack("<QI", 1, len(leaves))
        for path, value in leaves:
            encoded += struct.pack("<H", len(path)) + b"".join(text(part) for part in path)
            encoded += bytes((JSON,)) + struct.pack("<I", len(value)) + value
        return encoded


def test_what_is_printed_comes_before_the_result() -> None:
    with Host() as host:
        (worker,) = host.spawn()
        worker.run(lambda ctx: print("from a worker"))
        worker.kill()  # nothing is left in its buffers
        worker.wait_until_dead()
    assert host.output == b"from a worker\n"
    assert host.errors == b""


def test_large_arguments_lie_in_a_segment_and_are_private() -> None:
    from fake_host import Segment, in_segment

    array = np.arange(200_000.0)
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(("call", (array,), {}), 5, buffer_callback=buffers.append)
    content = stream.ljust(1024) + bytes(buffers[0].raw())
    segment = Segment(len(content), content)

    def change(ctx: Any, x: Any) -> Any:
        from theus.arrays import is_shared

        x[0] = -1  # writable, and nobody else's
        return float(x.sum()), is_shared(x)

    with Host() as host:
        (worker,) = host.spawn()
        value = in_segment(PICKLE, segment, (0, len(stream)), (1024, array.nbytes))
        for _ in range(2):
            fd = segment.reader()
            task = worker.submit(worker.define(change), value, fds=[fd])
            os.close(fd)
            assert worker.result(task) == (array.sum() - 1, False)
    assert segment.read(1024, 8) == np.float64(0).tobytes()
    segment.close()
