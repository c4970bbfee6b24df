"""Frames on a stream socket, with the descriptors that ride on them (docs/internals.md).

This file imports nothing but the standard library: the zygote loads it before it knows where the
theus package and its dependencies are.
"""

from __future__ import annotations

import array
import collections
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rings import Rings

PROTOCOL = 5

CONFIG = 1
ZYGOTE_READY = 2
SPAWN = 3
SPAWNED = 4
SPAWN_FAILED = 5
EXITED = 6
READY = 16
FUNCTION = 17
TASK = 18
FETCH = 19
FETCHED = 20
ALLOC = 21
GRANTED = 22
RESULT = 23
FAILED = 24
LOG = 25
RETIRE = 26
RETIRED = 27
EXIT = 28
CANCEL = 29
CANCELLED = 30
FORGET = 31
CHECK = 32
CHECKED = 33
WAKE = 34

# A frame's value is inline up to this size; larger ones go into a segment.
INLINE_LIMIT = 60_000

_HEADER = struct.Struct("<IHHQ")
_CHUNK = 1 << 16
_LARGEST = 16 << 20  # CONFIG
_MAX_DESCRIPTORS = 16
_ANCILLARY = socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)
# Plain numbers: an operator on the enum costs as much as a system call.
_SEND = int(socket.MSG_NOSIGNAL)
_READ = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
_DESCRIPTORS_LOST = int(socket.MSG_CTRUNC)
# The kernel lacks memory for a message, or this user has too many descriptors in flight. It passes.
_PASSES = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
_SOON = 0.001  # s
# A sleeper takes 55-69 µs to be woken on a two-core machine, more than a small task takes in all.
# So a reader polls a moment before it sleeps, as long as frames keep coming that fast.
_POLLING = 200_000  # ns
_OFTEN = 1_000_000  # ns from one frame to the next
# At a ring, about a microsecond, before others are let run. That is a system call, and behind one
# the interpreter runs at half its speed for some microseconds; but the host may be among them.
_LOOKS = 10


class ChannelClosed(Exception):
    """The other side is gone."""


class ProtocolError(Exception):
    """The other side broke the protocol: a bug, or mixed versions of theus."""


class Frame:
    """One message.

    Attributes:
        kind: its type, one of the numbers above.
        id: worker, task, request, function or segment, by type.
        payload: its fields; memory of its own, so arrays may lie over it.
        fds: its descriptors, the receiver's to close; None where one was lost on the way, because
            the receiver had no room in its table. Frames that carry any are `LadenFrame`s.
    """

    __slots__ = ("fds", "id", "kind", "payload")

    def __init__(self, kind: int, ident: int, payload: bytearray, fds: list[int | None]) -> None:
        self.kind = kind
        self.id = ident
        self.payload = payload
        self.fds = fds

    def take_fd(self) -> int | None:
        """The next descriptor, from now on the caller's; None: it was lost, or there is none."""
        return self.fds.pop(0) if self.fds else None

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        while self.fds:
            fd = self.fds.pop()
            if fd is not None:
                os.close(fd)

    def __enter__(self) -> Frame:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LadenFrame(Frame):
    """A frame that carries descriptors, and closes them if whoever was to take them was
    interrupted. Most frames carry none, and should not cost a finalizer."""

    __slots__ = ()
    __del__ = Frame.close


class Channel:
    """One end of a stream socket that carries frames. Not safe for threads by itself.

    Args:
        connection: the socket.
        rings: for short frames beside it.

    Attributes:
        may_poll: whether a processor is left for polling before sleeping; False at first, and
            without effect where there are no rings.
        incoming: what was read already of frames that were not received yet.
        cut_short: more may be there than the last read has brought, by the socket.
    """

    def __init__(self, connection: socket.socket, rings: Rings | None = None) -> None:
        self._socket = connection
        self._rings = rings
        self.may_poll = False
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)
        self.cut_short = False
        self._busy = False  # the last wait was a short one
        self.incoming = bytearray()
        self._offset = 0  # of incoming[0] in the whole stream
        self._sent = 0  # bytes
        self._arrivals: collections.deque[_Arrival] = collections.deque()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._rings = None
        while self._arrivals:
            self._arrivals.popleft().close()

    def send(self, kind: int, ident: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a frame; waits while the socket is full, which the host never lets it be for long.

        Raises:
            ChannelClosed: the other side is gone.
        """
        rings = self._rings
        if rings is not None and not fds and rings.offer(self._sent, kind, ident, payload):
            if rings.peer_looks.value:
                return
            kind, ident, payload = WAKE, 0, b""  # it may have gone to sleep without seeing that
        self._write(_HEADER.pack(len(payload), kind, len(fds), ident) + payload, fds)

    def _write(self, data: bytes, fds: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else None
        while True:
            try:
                # Not sendall: after a failure nobody would know how much was sent.
                if rights:
                    sent = self._socket.sendmsg([data], rights, _SEND)
                else:
                    sent = self._socket.send(data, _SEND)
            except ConnectionError as error:
                raise ChannelClosed from error
            except OSError as error:
                if error.errno not in _PASSES:
                    raise
                time.sleep(_SOON)  # no event tells when it has passed
                continue
            self._sent += sent
            if self._rings is not None:
                self._rings.say_sent(self._sent)
            if sent == len(data):
                return
            data, rights = data[sent:], None

    def readable(self) -> bool:
        """Whether something has come by the socket; costs less than to read and find nothing."""
        rings = self._rings
        if rings is None:
            return bool(self._poller.poll(0))
        return rings.sent.value > self._offset + len(self.incoming)

    @property
    def has_more(self) -> bool:
        """Frames may be here besides the last, to be had without waiting."""
        rings = self._rings
        if self.incoming or self.cut_short:
            return True
        return rings is not None and (rings.waiting or self.readable())

    def wait(self) -> None:
        """Sleep until `receive` has something to do: for a moment awake, where that pays."""
        rings = self._rings
        if (rings is not None and rings.waiting) or (self.incoming and self._head() is not None):
            return
        began = time.perf_counter_ns()
        polls = self._busy and self.may_poll
        if rings is None or not (polls and self._comes_before(rings, began + _POLLING)):
            self._sleep()
        self._busy = time.perf_counter_ns() - began < _OFTEN

    def _sleep(self) -> None:
        rings = self._rings
        if rings is None:
            self._poller.poll()
            return
        try:
            rings.look(False)
            if not rings.waiting:
                self._poller.poll()
        finally:
            rings.look(True)

    def _comes_before(self, rings: Rings, deadline: int) -> bool:
        """Whether something comes before that time, by polling."""
        now, let_others_run = time.perf_counter_ns, os.sched_yield
        put, taken, sent = rings.put, rings.taken, rings.sent
        read = self._offset + len(self.incoming)
        while now() < deadline:
            for _ in range(_LOOKS):
                if put.value != taken or sent.value > read:
                    return True
            let_others_run()  # the host may be on the same processor (pool/look.go)
        return False

    def receive(self) -> Frame | None:
        """The next frame; None when not all of it is there yet.

        Raises:
            ChannelClosed: the other side is gone, and all that it sent was received.
            ProtocolError: what came is no frame.
        """
        rings = self._rings
        while True:
            if rings is not None or self.incoming:
                frame = self.buffered()
                if frame is not None:
                    return frame
            data = self._read()
            if not data:
                return None
            # Whatever has been put into a ring meanwhile may come before it.
            first = not self.incoming and not (rings is not None and rings.waiting)
            if first and len(data) >= _HEADER.size:
                length, kind, nfds, ident = _HEADER.unpack_from(data)
                if length == len(data) - _HEADER.size and not nfds and not self._arrivals:
                    self._offset += len(data)  # one frame and nothing else, as mostly
                    payload = bytearray(data)
                    del payload[: _HEADER.size]
                    return Frame(kind, ident, payload, [])
            self.incoming += data

    def buffered(self) -> Frame | None:
        """The next frame of those that are here already; costs no system call."""
        rings = self._rings
        if rings is not None:
            frame = rings.take(self._offset)
            if frame is not None:
                return frame
        head = self._head()
        if head is None:
            return None
        length, kind, nfds, ident = head
        incoming, end = self.incoming, _HEADER.size + length
        payload = incoming[_HEADER.size : end]
        fds = self._take(nfds, kind) if nfds else []
        del incoming[:end]
        self._offset += end
        while self._arrivals and self._arrivals[0].end <= self._offset:
            self._arrivals.popleft().close()
        return LadenFrame(kind, ident, payload, fds) if fds else Frame(kind, ident, payload, fds)

    def _head(self) -> tuple[int, int, int, int] | None:
        """(length, type, descriptors, id) of the frame that comes next; None: not all is there."""
        available = len(self.incoming) - _HEADER.size
        if available < 0:
            return None
        head: tuple[int, int, int, int] = _HEADER.unpack_from(self.incoming)
        length, kind, _, _ = head
        if length > _LARGEST:
            raise ProtocolError(f"a frame of type {kind} announces {length} bytes")
        return head if length <= available else None

    def _take(self, count: int, kind: int) -> list[int | None]:
        """The descriptors of the frame that stands at the head of what was read."""
        # They came with the frame's first byte: not by an earlier read, and by no later one.
        arrival = self._arrivals[0] if self._arrivals else None
        if arrival is None or (len(arrival.fds) < count and not arrival.lost):
            raise ProtocolError(f"a frame of type {kind} came without its descriptors")
        fds: list[int | None] = [arrival.fds.pop(0) for _ in range(min(count, len(arrival.fds)))]
        return fds + [None] * (count - len(fds))

    def _read(self) -> bytes:
        """Read once, and note the descriptors that came. Empty: nothing was there."""
        try:
            data, ancillary, returned, _ = self._socket.recvmsg(_CHUNK, _ANCILLARY, _READ)
        except BlockingIOError:
            return b""
        except ConnectionError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        # The kernel ends a read behind descriptors: more may be there.
        self.cut_short = bool(ancillary) or len(data) == _CHUNK
        lost = bool(returned & _DESCRIPTORS_LOST)
        if ancillary or lost:
            end = self._offset + len(self.incoming) + len(data)
            self._arrivals.append(_Arrival(end, _descriptors(ancillary), lost))
        return data


class _Arrival:
    """Descriptors that one read brought.

    The kernel ends a read behind the bytes that carry descriptors, so they all belong to one
    frame, which begins before `end`.
    """

    __slots__ = ("end", "fds", "lost")

    def __init__(self, end: int, fds: list[int], lost: bool) -> None:
        self.end = end
        self.fds = fds
        self.lost = lost

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return fds.tolist()
