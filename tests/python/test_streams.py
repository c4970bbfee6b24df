"""engine.heavy.stream: frames that are never written again while anybody reads them."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import threading
from typing import Any

import numpy as np
import pytest

import jobs
from conftest import EngineFactory
from gate import Gate
from polling import until
from theus import (
    ContractViolationError,
    EngineClosed,
    HeapFull,
    StreamFull,
    TheusEngine,
    process,
    stream,
)
from theus._core import core

# Small arrays share their memory with others, large ones have their own.
SHAPES = [(10,), (512, 512)]


@process(parallel=True)
def values_of(ctx: Any, path: str, gate: str) -> list[float]:
    """What the frame holds before and after it has waited."""
    frame = ctx.heavy.camera
    first = set(np.unique(frame).tolist())
    jobs.report(path)
    jobs.wait_at(gate)
    return sorted(first | set(np.unique(frame).tolist()))


@process(parallel=True)
def value_of(ctx: Any) -> float:
    """The value that all elements of the current frame have; any other is an error."""
    (value,) = np.unique(ctx.heavy.camera).tolist()
    return float(value)


def show(frames: stream.Stream, value: float) -> None:
    with frames.next() as frame:
        frame[:] = value


@pytest.mark.parametrize("shape", SHAPES)
def test_each_frame_is_the_next_version(engine: TheusEngine, shape: tuple[int, ...]) -> None:
    frames = engine.heavy.stream("camera", shape, np.float32)
    for number in range(1, 20):
        with frames.next() as frame:
            assert frame.shape == shape
            assert frame.dtype == np.float32
            assert not frame.any(), "zeroed, whatever earlier frames held"
            frame[:] = number
        assert engine.state.version == number
        assert not frame.flags.writeable
        assert engine.run(value_of) == number


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_task_reads_is_not_written_again(
    engine: TheusEngine, gate: Gate, shape: tuple[int, ...]
) -> None:
    frames = engine.heavy.stream("camera", shape, keep=3)
    show(frames, 1)
    slow = engine.submit(values_of, gate.reports, gate.path)
    gate.arrived(1)
    for number in range(2, 12):
        show(frames, number)  # two places are left, and this needs no more
    kept = engine.state
    show(frames, 20)
    with pytest.raises(StreamFull) as caught:
        frames.next(timeout=0.3)
    assert caught.value.versions == (1, 11, 12)
    assert caught.value.building == 0
    assert caught.value.key == "camera"
    assert str(caught.value) == (
        'the stream of heavy["camera"] keeps 3 frames, and all are in use: version 1, version 11, '
        "version 12. One comes free when no task, snapshot or view has it any more. Let go of old "
        'ones, keep more (keep=), or leave them to their readers (full="drop_oldest").'
    )
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.versions == (1, 11, 12)
    gate.open()
    assert slow.result(60) == [1.0]
    show(frames, 21)
    assert set(np.unique(kept.heavy.camera).tolist()) == {11.0}


@pytest.mark.parametrize("shape", SHAPES)
def test_next_waits_for_the_slowest_task(
    engine: TheusEngine, gate: Gate, shape: tuple[int, ...]
) -> None:
    frames = engine.heavy.stream("camera", shape, keep=2)
    show(frames, 1)
    slow = engine.submit(values_of, gate.reports, gate.path)
    gate.arrived(1)
    show(frames, 2)
    shown = threading.Event()

    def producer() -> None:
        show(frames, 3)
        shown.set()

    thread = threading.Thread(target=producer)
    thread.start()
    assert not shown.wait(0.5)
    gate.open()
    thread.join()
    assert slow.result(60) == [1.0]
    assert engine.run(value_of) == 3.0


def test_a_killed_reader_gives_its_frame_back(engine: TheusEngine, gate: Gate) -> None:
    frames = engine.heavy.stream("camera", 100, keep=2)
    show(frames, 1)
    engine.submit(values_of, gate.reports, gate.path)
    (reader,) = gate.arrived(1)
    show(frames, 2)
    with pytest.raises(StreamFull):
        frames.next(timeout=0)
    os.kill(int(reader["pid"]), signal.SIGKILL)
    show(frames, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_oldest_can_be_left_to_its_readers(engine: TheusEngine, shape: tuple[int, ...]) -> None:
    frames = engine.heavy.stream("camera", shape, keep=2, full="drop_oldest")
    states = []
    for number in range(8):
        show(frames, number)
        states.append(engine.state)
    for number, state in enumerate(states):
        assert np.unique(state.heavy.camera).tolist() == [number]


def test_an_exception_drops_the_frame(engine: TheusEngine) -> None:
    frames = engine.heavy.stream("camera", 10, keep=2)
    show(frames, 1)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), frames.next() as frame:
            frame[:] = 1 / 0
        with pytest.raises(ContractViolationError):
            frame.publish()
        del frame
    assert engine.state.version == 1
    assert engine.run(value_of) == 1.0


def test_cycles_of_garbage_do_not_keep_a_frame(engine: TheusEngine) -> None:
    frames = engine.heavy.stream("camera", 10, keep=2)
    show(frames, 0)
    gc.disable()
    try:
        for number in range(5):
            cycle: list[Any] = [engine.heavy.camera]
            cycle.append(cycle)
            del cycle
            show(frames, number)
    finally:
        gc.enable()


def test_frames_of_several_threads(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=2)
    frames = engine.heavy.stream("camera", (64, 64), keep=5)
    show(frames, 0)
    done = threading.Event()

    def produce(first: int) -> None:
        for number in range(first, first + 200):
            show(frames, number)

    def read() -> None:
        while not done.is_set():
            assert len(np.unique(engine.state.heavy.camera)) == 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=produce, args=(n,)) for n in (0, 1000)]
    for thread in readers + writers:
        thread.start()
    results = [engine.submit(value_of) for _ in range(200)]
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert all(0 <= result.result(60) < 1200 for result in results)
    assert engine.state.version == 401


def test_coroutines_wait_in_a_thread(engine: TheusEngine) -> None:
    frames = engine.heavy.stream("camera", 100, keep=2)

    async def main() -> list[float]:
        results = []
        for number in range(20):
            with await asyncio.to_thread(frames.next) as frame:
                frame[:] = number
            results.append(engine.submit(value_of))
        return [result.result(60) for result in results]

    assert asyncio.run(main()) == [float(n) for n in range(20)]


def test_closing_the_engine_ends_the_wait(make_engine: EngineFactory) -> None:
    engine = make_engine(workers=1)
    frames = engine.heavy.stream("camera", 10, keep=2)
    held = [frames.next(), frames.next()]
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            frames.next(timeout=None)
        except EngineClosed as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    engine.close()
    thread.join()
    assert caught
    del held


def test_a_heap_without_room_is_heap_full(make_engine: EngineFactory) -> None:
    engine = make_engine(heap="8MB", workers=1)
    frames = engine.heavy.stream("camera", 1 << 21)  # 16 MiB: never
    for _ in range(4):
        with pytest.raises(HeapFull):
            frames.next()
    assert "camera" not in engine.heavy


def test_what_makes_no_stream(engine: TheusEngine) -> None:
    with pytest.raises(ValueError, match="keep must be at least 2, not 1: the current version"):
        engine.heavy.stream("camera", 10, keep=1)
    with pytest.raises(ValueError, match="full must be 'wait' or 'drop_oldest', not 'block'"):
        engine.heavy.stream("camera", 10, full="block")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        engine.heavy.stream("camera", -1)
    with pytest.raises(TypeError, match="Python objects"):
        engine.heavy.stream("camera", 3, object)
    with pytest.raises(ValueError, match="key"):
        engine.heavy.stream("", 10)
    frames = engine.heavy.stream("camera", 10)
    assert repr(frames) == "<stream of heavy['camera'], at most 3 frames>"
    with pytest.raises(TypeError, match=r"ctx\.heavy\['camera'\]"):
        pickle.dumps(frames)


def test_nothing_is_left_of_a_stream(engine: TheusEngine) -> None:
    frames = engine.heavy.stream("camera", (512, 512))
    for number in range(10):
        show(frames, number)
    del engine.heavy["camera"]
    until(lambda: engine.stats()["segments"] == 0, "the frames to go")


def test_an_interrupt_takes_no_place(engine: TheusEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C that comes when the library has just given a frame, which nobody gets then."""
    frames = engine.heavy.stream("camera", 10, keep=2)
    show(frames, 1)
    library = core()
    original = library.raw["theus_stream_next"]

    def interrupted(*arguments: Any) -> int:
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setitem(library.raw, "theus_stream_next", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            frames.next()
    monkeypatch.undo()
    show(frames, 2)


@pytest.mark.parametrize(
    ("keep", "kind"), [(2.5, TypeError), (2**64 + 2, ValueError), (-1, ValueError)]
)
def test_how_many_are_kept_is_a_number(engine: TheusEngine, keep: Any, kind: type) -> None:
    with pytest.raises(kind, match="keep"):
        engine.heavy.stream("camera", 10, keep=keep)
    with pytest.raises(ValueError, match="nan"):
        engine.heavy.stream("camera", 10).next(timeout=float("nan"))
