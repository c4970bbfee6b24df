"""Shared memory that a worker writes, hands over and lets go of."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fake_host import (
    ALLOC,
    CHECK,
    CHECKED,
    GRANTED,
    JSON,
    PICKLE,
    RESULT,
    RETIRE,
    RETIRED,
    Host,
    Segment,
    Worker,
    descriptor,
    in_segment,
    inline,
    is_written_elsewhere,
    text,
)
from processes import regions
from theus.errors import HeapFull

PRICES = np.arange(100_000.0).reshape(1000, 100)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Host() as host:
        yield host.spawn()[0]


@pytest.fixture
def prices() -> Iterator[Segment]:
    segment = Segment(PRICES.nbytes, PRICES.tobytes())
    yield segment
    segment.close()


def start(worker: Worker, fn: Any, *args: Any, arrays: Any = (), fds: Any = (), **more: Any) -> int:
    value = inline(PICKLE, pickle.dumps(("call", args, {})))
    return worker.submit(worker.define(fn), value, arrays=arrays, fds=fds, **more)


def run_with(worker: Worker, segment: Segment, fn: Any, *args: Any) -> Any:
    """Run a function with `prices` sent along."""
    fd = segment.reader()
    array = descriptor(segment, "prices", PRICES, has_fd=True)
    task = start(worker, fn, *args, arrays=[array], fds=[fd])
    os.close(fd)
    return worker.result(task)


class TestResults:
    @pytest.mark.parametrize("size", [10, 8000, 50_000, 1_000_000])
    def test_arrays_of_any_size_are_writable(self, worker: Worker, size: int) -> None:
        found = worker.run(lambda ctx, n: np.arange(float(n)), size)
        np.testing.assert_array_equal(found, np.arange(float(size)))
        assert found.flags.writeable

    def test_large_values_without_buffers(self, worker: Worker) -> None:
        values = list(range(300_000))
        assert worker.run(lambda ctx, n: list(range(n)), 300_000) == values

    def test_many_buffers_are_aligned(self, worker: Worker) -> None:
        task = worker.call(lambda ctx: [np.full(1000, i) for i in range(20)])
        message = worker.answer(RESULT, task)
        value = message.value()
        assert all(offset % 64 == 0 for offset, _ in value.ranges)
        assert [a[0] for a in worker.unpickle(value)] == list(range(20))
        assert len(worker.granted) == 1

    def test_a_refused_grant_is_heap_full(self, worker: Worker) -> None:
        task = worker.call(lambda ctx: np.zeros(1_000_000))
        full = {"Asked": 8_000_000, "InUse": 5, "Limit": 7, "Source": "heap=", "Holders": []}
        refusal = text(json.dumps({"message": "the heap is full: …", "full": full}))
        for _ in range(2):  # once more, when it has collected its garbage
            request = worker.expect(ALLOC)
            assert request.take("QQ")[0] == task
            assert "result of" in request.text()
            worker.send(GRANTED, request.id, b"\3" + refusal)
        kind, message, _, exception = worker.failure(task)
        assert (kind, message) == ("theus.errors.HeapFull", "the heap is full: …")
        assert isinstance(exception, HeapFull)
        assert isinstance(exception, MemoryError)
        assert (exception.asked, exception.in_use, exception.limit) == (8_000_000, 5, 7)

    def test_a_large_exception_whose_grant_is_refused_keeps_its_texts(self, worker: Worker) -> None:
        def fail(ctx: Any) -> None:
            raise ValueError("x" * 1_000_000)

        task = worker.call(fail)
        request = worker.expect(ALLOC)
        worker.send(GRANTED, request.id, b"\3" + text('{"message": "no"}'))
        kind, _, _, exception = worker.failure(task)
        assert (kind, exception) == ("ValueError", None)


class TestOutputs:
    def test_an_allocated_array_is_handed_over_without_a_copy(self, worker: Worker) -> None:
        def make(ctx: Any) -> Any:
            import builtins

            out = ctx.heavy.alloc("squares", (100, 1000), "f4")
            assert not out.any()
            builtins.view, builtins.plain = out[1:], np.asarray(out)
            out[:] = 3
            return {"out": out, "part": out[2:4]}

        def meddle(ctx: Any) -> Any:
            import builtins

            builtins.plain[:] = 9  # private by now
            try:
                builtins.view[:] = 9
            except ValueError as error:
                return str(error)

        task = worker.call(make)
        message = worker.answer(RESULT, task)
        stream = worker.spans(message.value())[0]
        (array,) = [message.array() for _ in range(message.take("H"))]
        message.end()
        assert len(stream) < 1000
        (segment,) = worker.granted.values()
        assert not is_written_elsewhere(segment)
        assert array["segment"] == segment.id
        assert (array["key"], array["descr"], array["has_fd"]) == ("squares", "<f4", 0)
        assert (array["shape"], array["strides"]) == ([100, 1000], [4000, 4])
        assert (np.frombuffer(segment.read(0, 400_000), "f4") == 3).all()
        assert "'squares'" in worker.run(meddle)
        assert (np.frombuffer(segment.read(0, 400_000), "f4") == 3).all()

    def test_a_writer_that_lives_on_is_noticed(self, worker: Worker) -> None:
        def make(ctx: Any) -> Any:
            out = ctx.heavy.alloc("x", 10)
            pid = os.fork()
            if not pid:
                import signal

                signal.pause()
            return pid, out

        task = worker.call(make)
        message = worker.answer(RESULT, task)
        value = message.value()
        (segment,) = worker.granted.values()
        assert is_written_elsewhere(segment)
        message.take("H")
        import theus.arrays

        class Here:
            def resolve(self, *_: Any) -> None:
                return None

        with theus.arrays.resolving(Here()):  # type: ignore[arg-type]
            pid, _ = worker.unpickle(value)
        os.kill(pid, 9)

    def test_an_array_that_is_not_returned_stays_the_workers(self, worker: Worker) -> None:
        def make(ctx: Any) -> Any:
            import builtins

            builtins.scratch = ctx.heavy.alloc("scratch", 5)
            return 1

        def use(ctx: Any) -> Any:
            import builtins

            builtins.scratch[:] = 4
            return builtins.scratch

        assert worker.run(make) == 1
        found = worker.run(use)  # by value: it was granted to another task
        assert type(found) is np.ndarray
        assert found.tolist() == [4.0] * 5

    @pytest.mark.parametrize(
        ("arguments", "kind", "words"),
        [
            (("x", -1), "ValueError", "negative"),
            (("x", (3, -1)), "ValueError", "negative"),
            (("x", 3, object), "TypeError", "fixed-size text"),
            (("", 3), "TypeError", "not empty"),
            ((5, 3), "TypeError", "string"),
            (("x", (1 << 40, 1 << 40)), "ValueError", "address space"),
            (("x", 1.5), "TypeError", ""),
        ],
    )
    def test_what_cannot_be_allocated(
        self, worker: Worker, arguments: Any, kind: str, words: str
    ) -> None:
        found, message, _, _ = worker.failure(
            worker.call(lambda ctx, a: ctx.heavy.alloc(*a), arguments)
        )
        assert found == kind
        assert words in message

    def test_sizes_of_zero_work(self, worker: Worker) -> None:
        task = worker.call(lambda ctx: ctx.heavy.alloc("empty", (0, 3)).shape)
        assert worker.result(task) == (0, 3)

    def test_json_refers_to_them_by_number(self, worker: Worker) -> None:
        def make(ctx: Any) -> Any:
            out = ctx.heavy.alloc("x", 3)
            return {"first": out, "again": out[1:], "plain": np.ones(2)}

        value = inline(PICKLE, pickle.dumps(("call", (), {})))
        task = worker.submit(worker.define(make), value, out_codec=JSON)
        message = worker.answer(RESULT, task)
        found = json.loads(bytes(worker.spans(message.value())[0]))
        assert found == {
            "first": {"theus_array": 0},
            "again": {"theus_array": 0},
            "plain": [1.0, 1.0],
        }
        assert message.take("H") == 1


class TestRetirement:
    def test_what_nobody_looks_at_is_let_go_of_at_once(
        self, worker: Worker, prices: Segment
    ) -> None:
        run_with(worker, prices, lambda ctx: float(ctx.heavy["prices"].sum()))
        assert shared_maps(worker.pid)
        worker.send(RETIRE, prices.id)
        worker.expect(RETIRED, prices.id)
        assert not shared_maps(worker.pid)

    def test_a_segment_that_was_never_mapped(self, worker: Worker) -> None:
        worker.send(RETIRE, 999_999)
        worker.expect(RETIRED, 999_999)

    def test_a_view_in_a_global_keeps_it(self, worker: Worker, prices: Segment) -> None:
        def keep(ctx: Any) -> None:
            import builtins

            builtins.view = np.asarray(ctx.heavy["prices"])[3:5]

        run_with(worker, prices, keep)
        worker.send(RETIRE, prices.id)
        total = worker.run(lambda ctx: float(__import__("builtins").view.sum()))
        assert total == PRICES[3:5].sum(), "not unmapped under the view"
        task = worker.call(lambda ctx: delattr(__import__("builtins"), "view"))
        assert worker.result(task) is None
        worker.expect(RETIRED, prices.id)
        assert not shared_maps(worker.pid)

    def test_garbage_that_keeps_it_is_collected_when_the_host_asks(
        self, worker: Worker, prices: Segment
    ) -> None:
        def leave_in_a_cycle(ctx: Any) -> None:
            import gc

            gc.disable()
            cycle: list[Any] = [ctx.heavy["prices"]]
            cycle.append(cycle)

        run_with(worker, prices, leave_in_a_cycle)
        worker.send(RETIRE, prices.id)
        worker.send(CHECK, 0, b"\0")
        worker.expect(CHECKED, 0)  # it lives, and nobody asked it to collect
        assert shared_maps(worker.pid)
        worker.send(CHECK, 0, b"\1")
        worker.expect(RETIRED, prices.id)
        worker.expect(CHECKED, 0)
        assert not shared_maps(worker.pid)

    def test_a_check_waits_for_the_task_that_runs(self, worker: Worker) -> None:
        task = worker.call(lambda ctx: ctx.heavy.alloc("x", 3).sum())
        request = worker.expect(ALLOC)
        worker.send(CHECK, 0, b"\1")
        worker.grant(request)
        assert worker.result(task) == 0.0
        worker.expect(CHECKED, 0)

    def test_it_is_told_during_a_task_that_asks_for_something(
        self, worker: Worker, prices: Segment
    ) -> None:
        run_with(worker, prices, lambda ctx: float(ctx.heavy["prices"].sum()))
        task = worker.call(lambda ctx: ctx.heavy.alloc("x", 3).sum())
        request = worker.expect(ALLOC)
        worker.send(RETIRE, prices.id)
        worker.expect(RETIRED, prices.id)  # before the grant that may wait for just that
        worker.grant(request)
        assert worker.result(task) == 0.0

    def test_inputs_outputs_and_failures_are_let_go_of(self, worker: Worker) -> None:
        array = np.arange(100_000.0)
        buffers: list[Any] = []
        stream = pickle.dumps(("call", (array,), {}), 5, buffer_callback=buffers.append)
        content = stream.ljust(1024) + bytes(buffers[0].raw())
        segment = Segment(len(content), content)

        def fail(ctx: Any, x: Any) -> None:
            y = ctx.heavy.alloc("y", x.shape)
            raise ValueError(float((x + y).sum()))

        fd = segment.reader()
        value = in_segment(PICKLE, segment, (0, len(stream)), (1024, array.nbytes))
        task = worker.submit(worker.define(fail), value, fds=[fd])
        os.close(fd)
        worker.failure(task)
        for number in (segment.id, *worker.granted):
            worker.send(RETIRE, number)
            worker.expect(RETIRED, number)
        assert not shared_maps(worker.pid)
        segment.close()

    def test_live_arrays_are_written_in_place(self, worker: Worker) -> None:
        segment = Segment(80)
        fd = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDWR)
        array = descriptor(segment, "counters", np.zeros(10), has_fd=True, flags=7)

        def count(ctx: Any) -> None:
            ctx.heavy["counters"][2] += 5

        task = start(worker, count, arrays=[array], fds=[fd])
        os.close(fd)
        worker.result(task)
        assert struct.unpack("<d", segment.read(16, 8)) == (5.0,)
        segment.close()


def shared_maps(pid: int) -> list[str]:
    return [r.name for r in regions(pid) if "test-segment" in r.name]
