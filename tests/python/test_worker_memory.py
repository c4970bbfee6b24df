"""Shared memory in a worker: what it reads, in place and read-only."""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fake_host import (
    FETCH,
    FETCHED,
    JSON,
    PICKLE,
    RESULT,
    RETIRE,
    RETIRED,
    Host,
    Message,
    Segment,
    Worker,
    descriptor,
    inline,
    text,
)
from processes import descriptors, regions
from theus import identity
from theus.arrays import Origin, bytes_over, over_memory
from theus.mapping import map_shared

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


def asked(worker: Worker, task: int, kind: int) -> tuple[Message, str, int]:
    question = worker.expect(FETCH)
    assert question.take("QB") == (task, kind)
    return question, question.text(), question.take("Q")


def answer(
    worker: Worker,
    question: Message,
    segment: Segment,
    what: Any,
    key: str,
    reservation: int | None = None,
) -> None:
    fd = segment.reader()
    array = descriptor(segment, key, what, has_fd=True)
    if reservation is not None:
        array += struct.pack("<Q", reservation)
    worker.send(FETCHED, question.id, b"\0" + array, [fd])
    os.close(fd)


def leave_free(ctx: Any, count: int) -> None:
    """Limit this process to so many more descriptors."""
    open_ones = {
        int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")
    }
    limit = next(n for n in range(1000) if len(set(range(n)) - open_ones) > count) - 1
    limit_descriptors(ctx, limit)


def limit_descriptors(ctx: Any, limit: int) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class TestReading:
    def test_an_array_that_was_sent_along(self, worker: Worker, prices: Segment) -> None:
        def look(ctx: Any) -> Any:
            x = ctx.heavy["prices"]
            return x.shape, float(x.sum()), x is ctx.heavy.prices, x.flags.writeable

        assert run_with(worker, prices, look) == ((1000, 100), PRICES.sum(), True, False)

    def test_it_lies_in_the_segment_itself(self, worker: Worker, prices: Segment) -> None:
        def touch(ctx: Any) -> int:
            x = ctx.heavy["prices"]
            x.sum()
            return int(x.ctypes.data)

        # As in the real host, which has it mapped: pages in one process alone count as private.
        here = map_shared(prices.fd, prices.size)
        assert bytes_over(here.address, prices.size, writable=False, keep=here).tobytes()
        address = run_with(worker, prices, touch)
        region = next(r for r in regions(worker.pid) if r.start <= address < r.end)
        assert region.is_shared_memory
        assert region.access == "r--s"
        assert region.amounts["Private_Dirty"] == 0
        assert region.amounts["Rss"] >= PRICES.nbytes
        memory = [name for name in descriptors(worker.pid) if "memfd" in name]
        assert len(memory) == 1, "its status page alone"

    def test_an_array_that_is_asked_for(self, worker: Worker, prices: Segment) -> None:
        task = start(worker, lambda ctx: [ctx.heavy["prices"][3, 4] for _ in range(3)])
        question, key, _ = asked(worker, task, 0)
        assert key == "prices"
        answer(worker, question, prices, PRICES, "prices")
        assert worker.result(task) == [304.0] * 3

    def test_a_segment_that_is_mapped_needs_no_descriptor(
        self, worker: Worker, prices: Segment
    ) -> None:
        run_with(worker, prices, lambda ctx: ctx.heavy["prices"].sum())
        array = descriptor(prices, "again", PRICES, has_fd=False)
        task = start(worker, lambda ctx: ctx.heavy["again"][3, 4], arrays=[array])
        assert worker.result(task) == 304.0

    def test_each_task_has_an_array_of_its_own_over_the_same_memory(
        self, worker: Worker, prices: Segment
    ) -> None:
        def reshape(ctx: Any) -> tuple[Any, int]:
            x = ctx.heavy["prices"]
            shape = x.shape
            x.shape = (-1,)
            base: Any = x.base  # what the worker keeps is not out of reach
            base.shape = (10, -1)
            return shape, x.ctypes.data

        array = descriptor(prices, "prices", PRICES, has_fd=False)
        first = run_with(worker, prices, reshape)
        for _ in range(3):  # the worker knows the description, and then the array
            task = start(worker, reshape, arrays=[array])
            assert worker.result(task) == first == ((1000, 100), first[1])
        worker.send(RETIRE, prices.id)
        worker.expect(RETIRED, prices.id)  # it is in nobody's way

    def test_other_bytes_are_another_array(self, worker: Worker, prices: Segment) -> None:
        run_with(worker, prices, lambda ctx: ctx.heavy["prices"].sum())
        for row in range(200):  # more than it remembers
            offset = 800 * row
            array = descriptor(prices, "row", PRICES[row], has_fd=False, offset=offset)
            task = start(worker, lambda ctx: ctx.heavy["row"][7], arrays=[array])
            assert worker.result(task) == PRICES[row, 7]

    def test_a_segment_that_is_not_mapped_is_asked_for_by_number(
        self, worker: Worker, prices: Segment
    ) -> None:
        array = descriptor(prices, "prices", PRICES, has_fd=False)
        task = start(worker, lambda ctx: ctx.heavy["prices"][3, 4], arrays=[array])
        question, _, segment = asked(worker, task, 1)
        assert segment == prices.id
        answer(worker, question, prices, np.zeros(prices.size, "u1"), "")
        assert worker.result(task) == 304.0

    def test_a_lost_descriptor_is_asked_for_again(self, worker: Worker, prices: Segment) -> None:
        worker.run(leave_free, 0)
        task = start(worker, lambda ctx: ctx.heavy["prices"][3, 4])
        for kind in (0, 1, 1):  # there is no room for it, each time
            question, _, segment = asked(worker, task, kind)
            answer(worker, question, prices, PRICES, "prices")
        assert segment == prices.id
        name, message, _, _ = worker.failure(task)
        assert name == "theus.errors.TheusError"
        assert "no descriptor left" in message
        worker.run(limit_descriptors, 1000)
        assert run_with(worker, prices, lambda ctx: ctx.heavy["prices"][3, 4]) == 304.0

    def test_descriptors_lost_in_a_task_do_not_shift_others(self, worker: Worker) -> None:
        first, second = Segment(8, np.float64(1).tobytes()), Segment(8, np.float64(2).tobytes())
        one = np.zeros(1)

        worker.run(leave_free, 1)
        fds = [first.reader(), second.reader()]
        arrays = [descriptor(s, k, one, has_fd=True) for s, k in ((first, "a"), (second, "b"))]
        function = worker.define(lambda ctx: (ctx.heavy.a[0], ctx.heavy.b[0]))
        value = inline(PICKLE, pickle.dumps(("call", (), {})))
        task = worker.submit(function, value, arrays=arrays, fds=fds)
        by_number = {first.id: first, second.id: second}
        while True:  # one of them gets through, which one is the kernel's business
            message = worker.connection.receive()
            assert message is not None
            if message.kind != FETCH:
                break
            message.take("QB")
            message.text()
            segment = by_number[message.take("Q")]
            answer(worker, message, segment, np.zeros(segment.size, "u1"), "")
        assert message.kind == RESULT
        assert message.id == task
        message.take("Q")
        assert worker.load(message) == (1.0, 2.0)
        for fd in fds:
            os.close(fd)
        first.close()
        second.close()

    def test_keys_that_are_not_there(self, worker: Worker) -> None:
        def look(ctx: Any) -> Any:
            assert ctx.heavy.get("prcies") is None
            assert "prcies" not in ctx.heavy
            try:
                ctx.heavy["prcies"]
            except KeyError as error:
                return str(error)

        task = start(worker, look)
        question, _, _ = asked(worker, task, 0)
        worker.send(FETCHED, question.id, b"\1" + text(json.dumps(["prices", "volumes"])))
        assert "did you mean 'prices'" in worker.result(task), "asked once, remembered"

        task = start(worker, lambda ctx: ctx.heavy["draft"])
        question, _, _ = asked(worker, task, 0)
        worker.send(FETCHED, question.id, b"\2")
        kind, message, _, _ = worker.failure(task)
        assert kind == "KeyError"
        assert "not published" in message

        task = start(worker, lambda ctx: list(ctx.heavy))
        question, _, _ = asked(worker, task, 4)
        names = text(json.dumps(["prices", "volumes"]))
        worker.send(FETCHED, question.id, b"\0" + struct.pack("<BBH", JSON, 0, 1) + names)
        assert worker.result(task) == ["prices", "volumes"]

    def test_an_array_that_reaches_over_its_segment_is_refused(self, worker: Worker) -> None:
        segment = Segment(8)
        fd = segment.reader()
        array = descriptor(segment, "x", np.zeros(10_000), has_fd=True)
        task = start(worker, lambda ctx: ctx.heavy.x.sum(), arrays=[array], fds=[fd])
        os.close(fd)
        assert "reaches over segment" in worker.failure(task)[1]
        segment.close()

    def test_structured_arrays(self, worker: Worker) -> None:
        table = np.array([(1, 2.5), (3, 4.5)], dtype=[("id", "<i4"), ("x", "<f8")])
        segment = Segment(table.nbytes, table.tobytes())
        fd = segment.reader()
        array = descriptor(segment, "table", table, has_fd=True)
        task = start(worker, lambda ctx: ctx.heavy.table["x"].sum(), arrays=[array], fds=[fd])
        os.close(fd)
        assert worker.result(task) == 7.0
        segment.close()


class TestReadOnly:
    @pytest.mark.parametrize(
        "code",
        [
            "x[0] = 1",
            "x += 1",
            "np.add(x, 1, out=x)",
            "np.asarray(x)[0] = 1",
            "np.copyto(np.asarray(x), 0)",
            "x.flags.writeable = True",
            "memoryview(x).cast('B')[0] = 1",
        ],
    )
    def test_writing_is_refused_with_advice(
        self, worker: Worker, prices: Segment, code: str
    ) -> None:
        def write(ctx: Any, code: str) -> None:
            exec(code, {"x": ctx.heavy["prices"], "np": np})

        fd = prices.reader()
        array = descriptor(prices, "prices", PRICES, has_fd=True)
        task = start(worker, write, code, arrays=[array], fds=[fd])
        os.close(fd)
        kind, message, trace, exception = worker.failure(task)
        if code.startswith("memoryview"):  # Python's own error, about read-only memory
            assert kind == "TypeError"
        else:
            assert kind == "ValueError"
            assert isinstance(exception, ValueError)
            assert "ctx.heavy.cow('prices')" in trace
            assert "engine.heavy.edit('prices')" in trace
        assert prices.read(0, PRICES.nbytes) == PRICES.tobytes()
        assert message

    def test_other_value_errors_get_no_advice(self, worker: Worker, prices: Segment) -> None:
        fd = prices.reader()
        array = descriptor(prices, "prices", PRICES, has_fd=True)
        task = start(
            worker, lambda ctx: ctx.heavy["prices"] + np.zeros(7), arrays=[array], fds=[fd]
        )
        os.close(fd)
        assert "cow" not in worker.failure(task)[2]

    def test_cow_is_private(self, worker: Worker, prices: Segment) -> None:
        def change(ctx: Any) -> Any:
            mine = ctx.heavy.cow("prices")
            mine[0, 0] = -5
            return mine[0, 0], ctx.heavy["prices"][0, 0], type(mine).__name__

        fd = prices.reader()
        array = descriptor(prices, "prices", PRICES, has_fd=True)
        task = start(worker, change, arrays=[array], fds=[fd])
        os.close(fd)
        question, _, segment = asked(worker, task, 5)
        assert segment == prices.id
        reservation = 777_777
        answer(worker, question, prices, np.zeros(prices.size, "u1"), "", reservation)
        assert worker.result(task) == (-5.0, 0.0, "ndarray")
        worker.expect(RETIRED, reservation)  # what it may have written is gone
        assert prices.read(0, 8) == PRICES.tobytes()[:8]

    def test_a_cow_that_comes_too_late_is_given_back(self, worker: Worker, prices: Segment) -> None:
        def interrupted(ctx: Any) -> str:
            import signal

            def give_up(*_: Any) -> None:
                raise TimeoutError("enough")

            signal.signal(signal.SIGALRM, give_up)
            try:
                ctx.heavy.cow("prices")
            except TimeoutError as error:
                return str(error)
            return "it was answered"

        fd = prices.reader()
        array = descriptor(prices, "prices", PRICES, has_fd=True)
        task = start(worker, interrupted, arrays=[array], fds=[fd])
        os.close(fd)
        question, _, _ = asked(worker, task, 5)
        os.kill(worker.pid, signal.SIGALRM)
        assert worker.result(task) == "enough"
        reservation = 777_777
        answer(worker, question, prices, np.zeros(prices.size, "u1"), "", reservation)
        worker.expect(RETIRED, reservation)


class TestReferences:
    def test_arguments_that_refer_to_arrays(self, worker: Worker, prices: Segment) -> None:
        host_map = map_shared(prices.fd, prices.size)
        origin = Origin(
            key="prices", segment=prices.id, version=1, address=host_map.address, kind="published"
        )
        array = over_memory(
            host_map.address,
            PRICES.dtype,
            PRICES.shape,
            None,
            writable=False,
            origin=origin,
            keep=host_map,
        )
        value = pickle.dumps(("call", (array[5, ::2],), {}))
        assert len(value) < 1000
        fd = prices.reader()
        sent = descriptor(prices, "prices", PRICES, has_fd=True)
        function = worker.define(lambda ctx, x: (x.tolist(), type(x).__name__))
        task = worker.submit(function, inline(PICKLE, value), arrays=[sent], fds=[fd])
        os.close(fd)
        assert worker.result(task) == (PRICES[5, ::2].tolist(), "ShmArray")

    def test_results_that_refer_to_arrays_of_the_task(
        self, worker: Worker, prices: Segment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fd = prices.reader()
        array = descriptor(prices, "prices", PRICES, has_fd=True)

        def part(ctx: Any) -> Any:
            import builtins

            builtins.kept = ctx.heavy["prices"][1:3]
            return builtins.kept

        task = start(worker, part, arrays=[array], fds=[fd])
        os.close(fd)
        message = worker.answer(RESULT, task)
        value = message.value()
        (described,) = [message.array() for _ in range(message.take("H"))]
        assert described["segment"] == prices.id
        assert described["shape"] == [1000, 100]
        assert len(worker.spans(value)[0]) < 1000, "no data"
        # A later task has not read it: the host may have let go of it, so it is sent by value.
        task = start(worker, lambda ctx: __import__("builtins").kept)
        np.testing.assert_array_equal(worker.result(task), PRICES[1:3])

    def test_tokens_tell_hosts_apart(self) -> None:
        assert identity.token_of(os.getpid()) == identity.token_of(os.getpid())
        assert identity.token_of(os.getpid()) != identity.token_of(os.getppid())
