"""The rings of a worker and its host: short frames by memory that both map, without a system call.

A frame for who looks goes into a ring, one for who sleeps by the socket. The layout, and why
neither side sleeps through a frame, is told in shm/ring.go.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import threading

from .frames import Frame, ProtocolError

PUT = 0  # offsets in a ring
TAKEN = 8
LOOKS = 16
SENT = 24
SLOTS = 64

COUNT = 8
SLOT = 2040
SIZE = SLOTS + COUNT * SLOT

# Frames are read and written here with plain stores and loads, which other processors see in
# order on x86 alone. Elsewhere a worker says that it does not look, and sends nothing by its ring.
ORDERED = platform.machine() in ("x86_64", "AMD64")

_HEAD = struct.Struct("<QQIHHQ")  # mark, length of the frame, and the header of the frame
_HEADER_SIZE = 16
LONGEST = SLOT - _HEAD.size + _HEADER_SIZE  # with its header

_new_lock = threading.Lock


class Rings:
    """Both rings, seen from one end.

    Args:
        own: address of the ring that this side writes.
        peer: address of the ring that it reads.

    Attributes:
        put: how many frames the other side has written; its `value` is read.
        taken: how many of them were taken.
        sent: how many bytes the other side has written to the socket; its `value` is read.
        peer_looks: its `value` is not 0 while the other side looks here before it sleeps.
    """

    def __init__(self, own: int, peer: int) -> None:
        word = ctypes.c_uint64.from_address
        self.put = word(peer + PUT)
        self.sent = word(peer + SENT)
        self.peer_looks = word(peer + LOOKS)
        self.taken = 0
        self._peer_taken = word(peer + TAKEN)
        self._own_put = word(own + PUT)
        self._own_taken = word(own + TAKEN)
        self._own_looks = word(own + LOOKS)
        self._own_sent = word(own + SENT)
        self._written = 0
        # Over the memory itself; whoever mapped it keeps it.
        self._own = memoryview((ctypes.c_char * SIZE).from_address(own)).cast("B")
        self._peer = memoryview((ctypes.c_char * SIZE).from_address(peer)).cast("B")

    def offer(self, mark: int, kind: int, ident: int, payload: bytes) -> bool:
        """Write a frame, to be read behind `mark` bytes of the socket.

        Returns:
            False: it must go by the socket, as the other side sleeps, it is too long, or too many
            wait here. True: it is there; if `peer_looks` is 0 after this, the other side has gone
            to sleep meanwhile, and has to be woken.
        """
        length = len(payload)
        count = length + _HEADER_SIZE
        if not self.peer_looks.value or count > LONGEST or not ORDERED:
            return False
        if self._written - self._peer_taken.value >= COUNT:
            return False
        at = SLOTS + self._written % COUNT * SLOT
        _HEAD.pack_into(self._own, at, mark, count, length, kind, 0, ident)
        at += _HEAD.size
        self._own[at : at + length] = payload
        self._written += 1
        self._own_put.value = self._written
        _fence()
        return True

    def take(self, consumed: int) -> Frame | None:
        """The next frame. None: there is none, or more than `consumed` bytes of the socket come
        before it."""
        taken = self.taken
        if self.put.value == taken:
            return None
        at = SLOTS + taken % COUNT * SLOT
        mark, count, length, kind, _, ident = _HEAD.unpack_from(self._peer, at)
        if mark > consumed:
            return None
        if count != length + _HEADER_SIZE or count > LONGEST:
            raise ProtocolError(f"a frame of type {kind} in a ring announces {length} bytes")
        at += _HEAD.size
        payload = bytearray(self._peer[at : at + length])
        self.taken = self._own_taken.value = taken + 1
        return Frame(kind, ident, payload, [])

    @property
    def waiting(self) -> bool:
        """Frames are here that were not taken."""
        return bool(self.put.value != self.taken)

    def look(self, looks: bool) -> None:
        """Say whether this side looks here before it sleeps. Who said that it does not is to look
        once more."""
        self._own_looks.value = looks and ORDERED
        _fence()

    def say_sent(self, count: int) -> None:
        """Say how many bytes this side has written to the socket."""
        self._own_sent.value = count


def _fence() -> None:
    """Have what was stored before be seen before anything is loaded that comes after.

    Taking a free lock is an atomic instruction, and those are full fences on x86. A lock of its
    own is free whoever interrupts this. No test can show that it is needed: between a store and a
    load of Python's there are hundreds of instructions, mostly enough for the store to be seen.
    """
    _new_lock().acquire()
