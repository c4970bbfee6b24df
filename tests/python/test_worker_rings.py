"""Rings beside a worker's socket: frames keep their order, and nobody sleeps through one."""

from __future__ import annotations

import ctypes
import mmap
import random
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from theus.worker import frames, rings, wire
from theus.worker.frames import Channel, ChannelClosed, Frame, ProtocolError
from theus.worker.link import Link
from theus.worker.rings import Rings

pytestmark = pytest.mark.skipif(not rings.ORDERED, reason="rings are for x86")


class Pair:
    """Both ends, in this process, over memory of its own."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 2 * rings.SIZE)
        self.host_ring = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.worker_ring = self.host_ring + rings.SIZE
        self.sockets = socket.socketpair()
        host, worker = self.rings = (
            Rings(self.host_ring, self.worker_ring),
            Rings(self.worker_ring, self.host_ring),
        )
        self.host = Channel(self.sockets[0], host)
        self.worker = Channel(self.sockets[1], worker)

    def close(self) -> None:
        self.host.close()
        self.worker.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_a_frame_for_who_looks_costs_no_system_call(pair: Pair) -> None:
    pair.rings[1].look(True)
    pair.host.send(frames.TASK, 7, b"payload")
    assert not select.select([pair.sockets[1]], [], [], 0)[0]
    assert pair.worker.has_more
    frame = pair.worker.receive()
    assert frame is not None
    assert (frame.kind, frame.id, frame.payload, frame.fds) == (frames.TASK, 7, b"payload", [])
    assert not pair.worker.has_more
    assert pair.worker.receive() is None


def test_a_frame_for_who_sleeps_goes_by_the_socket(pair: Pair) -> None:
    pair.host.send(frames.TASK, 7)
    assert pair.worker.readable()
    assert select.select([pair.sockets[1]], [], [], 0)[0]
    assert not pair.rings[1].waiting


def test_one_who_falls_asleep_meanwhile_is_woken(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.rings[1].look(True)
    offer = Rings.offer

    def offer_to_one_who_does_not_look_again(self: Rings, *frame: Any) -> bool:
        offered = offer(self, *frame)
        pair.rings[1].look(False)
        return offered

    monkeypatch.setattr(Rings, "offer", offer_to_one_who_does_not_look_again)
    pair.host.send(frames.TASK, 7)
    assert select.select([pair.sockets[1]], [], [], 0)[0]
    received = [pair.worker.receive(), pair.worker.receive()]
    assert [frame and frame.kind for frame in received] == [frames.TASK, frames.WAKE]


def test_who_falls_asleep_sees_what_was_put_before(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.rings[1].look(True)
    pair.host.send(frames.TASK, 7)
    assert not select.select([pair.sockets[1]], [], [], 0)[0], "nothing would wake it"
    monkeypatch.setattr(pair.worker, "_poller", None)
    pair.worker._sleep()
    assert pair.rings[0].peer_looks.value, "it is awake again"


@hypothesis.given(script=st.lists(st.sampled_from(["ring", "socket", "large", "read"])))
@hypothesis.settings(deadline=None, derandomize=True, database=None)
def test_frames_keep_their_order_whichever_way_they_go(script: list[str]) -> None:
    pair = Pair()
    sent, received = 0, []

    def read() -> None:
        while (frame := pair.worker.receive()) is not None:
            received.append(frame.id)

    try:
        for step in script:
            if step == "read":
                read()
                continue
            pair.rings[1].look(step != "socket")
            pair.host.send(frames.LOG, sent, bytes(rings.LONGEST if step == "large" else 5))
            sent += 1
        read()
    finally:
        pair.close()
    assert received == list(range(sent))


def test_what_was_put_before_a_frame_of_the_socket_comes_before_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Channel._read

    def read_when_both_have_come(self: Channel) -> bytes:
        pair.rings[1].look(True)
        pair.host.send(frames.LOG, 1)
        pair.rings[1].look(False)
        pair.host.send(frames.LOG, 2)
        monkeypatch.setattr(Channel, "_read", read)
        return read(self)

    monkeypatch.setattr(Channel, "_read", read_when_both_have_come)
    received = [pair.worker.receive(), pair.worker.receive()]
    assert [frame and frame.id for frame in received] == [1, 2]


def test_a_cancellation_behind_a_full_ring_is_seen_before_the_task_begins(pair: Pair) -> None:
    link = Link(pair.worker, 1)
    pair.rings[1].look(True)
    for n in range(rings.COUNT - 1):
        pair.host.send(frames.FORGET, n)
    task = struct.pack("<QQQBBH", 1, 1, 1, wire.CODEC_PICKLE, 0, 0) + wire.text("")
    pair.host.send(frames.TASK, 99, task + wire.inline_span(wire.CODEC_PICKLE, b"input"))
    pair.host.send(frames.CANCEL, 99)  # by the socket
    pair.host.send(frames.EXIT, 0)
    assert link.next_task() is None
    answer = pair.host.receive()
    assert answer is not None
    assert (answer.kind, answer.id) == (frames.CANCELLED, 99)


def test_nobody_sleeps_through_a_frame(pair: Pair) -> None:
    rounds = 3_000
    lost = threading.Event()

    def receive(channel: Channel) -> Frame:
        while (frame := channel.receive()) is None or frame.kind == frames.WAKE:
            if frame is None:
                channel.wait()
        return frame

    def answer() -> None:
        try:
            for _ in range(rounds):
                pair.worker.send(frames.LOG, receive(pair.worker).id)
        except ChannelClosed:
            lost.set()

    thread = threading.Thread(target=answer)
    thread.start()
    watch = threading.Timer(60, lambda: pair.sockets[0].shutdown(socket.SHUT_RDWR))
    watch.start()
    try:
        order = random.Random(1)
        for n in range(rounds):
            pair.worker.may_poll = pair.host.may_poll = order.random() < 0.5
            pair.host.send(frames.LOG, n, bytes(order.choice((0, 3_000))))
            assert receive(pair.host).id == n
    finally:
        watch.cancel()
        watch.join()
        thread.join()
    assert not lost.is_set()


def test_a_full_ring_leaves_the_rest_to_the_socket(pair: Pair) -> None:
    pair.rings[1].look(True)
    for n in range(rings.COUNT + 3):
        pair.host.send(frames.LOG, n)
    received = [pair.worker.receive() for _ in range(rings.COUNT + 3)]
    assert [frame and frame.id for frame in received] == list(range(rings.COUNT + 3))


def test_what_is_no_frame_is_refused(pair: Pair) -> None:
    pair.rings[1].look(True)
    pair.host.send(frames.LOG, 1, b"abc")
    ctypes.c_uint64.from_address(pair.host_ring + rings.SLOTS + 8).value = 1000
    with pytest.raises(ProtocolError, match="in a ring announces"):
        pair.worker.receive()
