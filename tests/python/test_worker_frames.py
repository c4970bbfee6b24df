"""Frames on a socket: pieces, descriptors, and descriptors that get lost."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from theus.worker import frames, wire
from theus.worker.frames import Channel, ChannelClosed, ProtocolError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Channel]]:
    ours, theirs = socket.socketpair()
    channel = Channel(theirs)
    yield ours, channel
    channel.close()
    ours.close()


def write(sock: socket.socket, kind: int, payload: bytes = b"", fds: int = 0) -> list[int]:
    """Send a frame with that many pipes' ends; gives their inodes."""
    data = struct.pack("<IHHQ", len(payload), kind, fds, kind) + payload
    pipes = [os.pipe() for _ in range(fds)]
    rights = array.array("i", [reader for reader, _ in pipes])
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else []
    sock.sendmsg([data], extra)
    inodes = [os.fstat(reader).st_ino for reader, _ in pipes]
    for fd in (fd for ends in pipes for fd in ends):
        os.close(fd)
    return inodes


def inodes(frame: frames.Frame | None) -> list[int | None]:
    assert frame is not None
    found = [None if fd is None else os.fstat(fd).st_ino for fd in frame.fds]
    assert not any(os.get_inheritable(fd) for fd in frame.fds if fd is not None)
    frame.close()
    return found


def test_frames_keep_their_order_and_their_descriptors(
    pair: tuple[socket.socket, Channel],
) -> None:
    sock, channel = pair
    sent = [write(sock, kind, b"x" * kind * 100, kind % 3) for kind in range(1, 10)]
    assert [inodes(channel.receive()) for _ in sent] == sent
    assert channel.receive() is None


def test_a_frame_in_single_bytes(pair: tuple[socket.socket, Channel]) -> None:
    sock, channel = pair
    data = struct.pack("<IHHQ", 5, 7, 0, 9) + b"hello"
    for i in range(len(data) - 1):
        sock.send(data[i : i + 1])
        assert channel.receive() is None
    sock.send(data[-1:])
    frame = channel.receive()
    assert frame is not None
    assert (frame.kind, frame.id, frame.payload) == (7, 9, b"hello")


def test_a_lost_descriptor_is_missed_by_its_own_frame_only(
    pair: tuple[socket.socket, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Room for one: the kernel then says MSG_CTRUNC and drops the others, as it does when the
    # table of open files is full.
    monkeypatch.setattr(frames, "_ANCILLARY", socket.CMSG_LEN(4))
    sock, channel = pair
    first = write(sock, 1, b"x" * 10, fds=2)
    second = write(sock, 2, fds=1)
    write(sock, 3)
    third = write(sock, 4, b"x" * 100_000, fds=1)
    assert inodes(channel.receive()) == [first[0], None]
    assert inodes(channel.receive()) == second
    assert inodes(channel.receive()) == []
    assert inodes(channel.receive()) == third


def test_nothing_is_left_open_when_a_channel_is_closed_early() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(theirs)
    write(ours, 1, b"x" * 10, fds=2)
    ours.send(b"half")
    write(ours, 1, fds=2)
    first = channel.receive()
    assert first is not None
    first.close()
    channel.close()
    ours.close()


def test_the_end_of_the_stream_comes_after_what_was_sent(
    pair: tuple[socket.socket, Channel],
) -> None:
    sock, channel = pair
    channel.send(5, 1, b"never read")  # makes the kernel report a reset
    write(sock, 1)
    sock.shutdown(socket.SHUT_WR)
    assert channel.receive() is not None
    with pytest.raises(ChannelClosed):
        channel.receive()


def test_sending_to_nobody(pair: tuple[socket.socket, Channel]) -> None:
    sock, channel = pair
    sock.close()
    with pytest.raises(ChannelClosed):
        channel.send(5, 1, b"x")


def test_descriptors_travel_out(pair: tuple[socket.socket, Channel]) -> None:
    sock, channel = pair
    reader, writer = os.pipe()
    channel.send(4, 1, b"pid!", (reader,))
    data, fds, _, _ = socket.recv_fds(sock, 100, 4)
    assert data[16:] == b"pid!"
    assert os.fstat(fds[0]).st_ino == os.fstat(reader).st_ino
    for fd in (reader, writer, *fds):
        os.close(fd)


@pytest.mark.parametrize("header", [(1 << 30, 1, 0, 0), (0, 1, 3, 0)])
def test_what_is_no_frame(
    pair: tuple[socket.socket, Channel], header: tuple[int, int, int, int]
) -> None:
    sock, channel = pair
    sock.send(struct.pack("<IHHQ", *header))
    with pytest.raises(ProtocolError):
        channel.receive()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\3\0\1\0",
        b"\3\0\1\0\xff\xff\xff\xff",
        b"\3\1\1\0" + struct.pack("<QQQQ", 1, 10, 5, 6),
        b"\3\7\0\0",
    ],
)
def test_values_that_are_cut_or_reach_too_far(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.Reader(bytearray(payload)).value()


def test_values_are_views_that_can_be_written_to() -> None:
    payload = bytearray(wire.inline_value(3, [memoryview(b"one"), memoryview(b"three")]))
    first, second = wire.Reader(payload).value().spans
    assert (bytes(first), bytes(second)) == (b"one", b"three")
    assert not first.readonly


def test_texts_with_lone_surrogates_can_be_sent() -> None:
    payload = bytearray(wire.text("file\udcff"))
    assert wire.Reader(payload).text() == "file\\udcff"


@pytest.mark.parametrize("field", ["value", "array", "text", "task"])
@hypothesis.given(payload=st.binary(max_size=200))
@hypothesis.settings(deadline=None, derandomize=True, database=None)
def test_any_payload_is_read_or_refused(field: str, payload: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        getattr(wire.Reader(bytearray(payload)), field)()


@hypothesis.given(
    head=st.tuples(*[st.integers(0, 2**64 - 1)] * 3, *[st.integers(0, 255)] * 2, st.integers(0, 9)),
    target=st.sampled_from(["", "module:name"]),
    spans=st.lists(st.binary(max_size=20), max_size=3),
    cut=st.integers(0, 20),
)
@hypothesis.settings(deadline=None, derandomize=True, database=None)
def test_a_task_begins_with_what_was_written(
    head: tuple[int, ...], target: str, spans: list[bytes], cut: int
) -> None:
    value = wire.inline_value(wire.CODEC_PICKLE, [memoryview(span) for span in spans])
    payload = bytearray(struct.pack("<QQQBBH", *head) + wire.text(target) + value)
    *fields, named, read = wire.Reader(payload + b"behind it").task()
    assert (tuple(fields), named) == (head, target)
    assert [bytes(span) for span in read.spans] == spans
    plain = wire.plain_task(payload + b"behind it")
    assert (plain is not None) == (not target and len(spans) == 1)
    if plain is not None:
        *fields, codec, span, end = plain
        assert (tuple(fields), codec, [bytes(span)]) == (head, wire.CODEC_PICKLE, spans)
        assert end == len(payload)
    assert wire.plain_task(payload[: len(payload) - 1 - cut]) is None
    if cut:
        with pytest.raises(ProtocolError):
            wire.Reader(payload[:-cut]).task()


@hypothesis.given(pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=20))
@hypothesis.settings(deadline=None, derandomize=True, database=None)
def test_any_bytes_are_frames_or_refused(pieces: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(theirs)
    rest = b"".join(pieces)
    try:
        for piece in pieces:
            ours.sendall(piece)
            while (frame := channel.receive()) is not None:
                length, kind, fds, ident = struct.unpack_from("<IHHQ", rest)
                assert (frame.kind, frame.id, fds) == (kind, ident, 0)
                assert bytes(frame.payload) == rest[16 : 16 + length]
                rest = rest[16 + length :]
    except ProtocolError:
        length, _, fds, _ = struct.unpack_from("<IHHQ", rest)
        assert fds or length > 1 << 16
    finally:
        channel.close()
        ours.close()
