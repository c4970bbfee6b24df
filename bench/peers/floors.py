"""What the machine itself takes, by the shortest way there is: no tool can be faster."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from . import FLOOR, Entry


class Floor(AbstractContextManager["Floor"]):
    """The work itself, without a pool."""

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def socket_round_trip(self) -> Iterator[Callable[[], object]]:
        """Eight bytes to another process and back, over a socket that both sleep on."""
        here, there = socket.socketpair()
        other = multiprocessing.get_context("fork").Process(
            target=_echo, args=(there, here), daemon=True
        )
        other.start()
        there.close()

        def once() -> object:
            here.sendall(b"12345678")
            return here.recv(64)

        try:
            yield once
        finally:
            here.close()
            other.join()

    def warm_copy(self, nbytes: int) -> Callable[[], object]:
        """Copying an array to memory that has its pages already."""
        source, target = np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)
        return lambda: np.copyto(target, source)


def _echo(connection: socket.socket, other_end: socket.socket) -> None:
    other_end.close()  # or it would never end
    while data := connection.recv(64):
        connection.sendall(data)


ENTRIES = [Entry(FLOOR, "numpy", Floor, "bench/peers/floors.py")]
