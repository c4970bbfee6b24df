"""Clients in processes of their own, which reach the engine over a socket that its host serves.

theus has no way of its own to attach a process that its pool did not start; a program that wants
one serves its engine, as this does. What such a client was told is what its own process has
written down, and between the engine and that lie a socket and the kill of either side.

As a program: ``attached.py SOCKET NUMBER SEED CALLS``.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from multiprocessing.connection import Client as connect
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from random import Random
from typing import Any

import journal
from theus import ContextError, TheusEngine


class Served:
    """An engine for attached processes; each has a thread of the host's."""

    def __init__(self, engine: TheusEngine, address: str) -> None:
        self._engine = engine
        self._listener = Listener(address)
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Any) -> None:
        with connection:
            try:
                while True:
                    kind, arguments = connection.recv()
                    connection.send(getattr(self, kind)(**arguments))
            except (EOFError, ConnectionError):
                pass  # it was killed, or is through

    def read(self) -> dict[str, Any]:
        state = self._engine.state
        return {"version": state.version, "values": journal.values_of(state.domain)}

    def swap(self, expected: int, sets: list[str], value: str) -> dict[str, Any]:
        data = {f"domain.{key}": value for key in sets}
        try:
            self._engine.compare_and_swap(expected, data=data)
        except ContextError as lost:
            return {"version": lost.found}
        return {"won": True}

    def put(self, sets: list[str], value: str) -> dict[str, Any]:
        (key,) = sets
        self._engine.update(f"domain.{key}", lambda _: value)
        return {}

    def add(self) -> dict[str, Any]:
        return {"value": str(self._engine.update("domain.n", lambda n: n + 1))}

    def close(self) -> None:
        self._listener.close()


def start(address: str, number: int, seed: str, calls: int) -> subprocess.Popen[bytes]:
    """A process that makes so many calls."""
    arguments = [address, str(number), seed, str(calls)]
    return subprocess.Popen([sys.executable, str(Path(__file__).resolve()), *arguments])


def main() -> int:
    address, number, seed, calls = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    random = Random(f"{seed} client {number}")
    try:
        with connect(address) as host:
            make_calls(host, number, random, calls)
    except (EOFError, ConnectionError):
        pass  # the host was killed
    return 0


def make_calls(host: Connection, number: int, random: Random, calls: int) -> None:
    seen = 0
    for _ in range(calls):
        kind = random.choice(("read", "swap", "swap", "put", "add"))
        operation: dict[str, Any] = {}
        if kind in ("swap", "put"):
            most = 2 if kind == "swap" else 1
            operation["sets"] = random.sample(journal.KEYS[:-1], random.randint(1, most))
            operation["value"] = f"{number}.{random.getrandbits(32):08x}"
        if kind == "swap":
            operation["expected"] = seen
        name = journal.own().name()
        journal.own().call(name, number, kind, **operation)
        host.send((kind, operation))
        answer = host.recv()
        journal.own().answer(name, **answer)
        seen = answer.get("version", seen)


if __name__ == "__main__":
    sys.exit(main())
