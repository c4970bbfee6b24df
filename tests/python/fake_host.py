"""The host's side of the worker protocol in Python, to test workers without the library.

It speaks docs/internals.md and nothing more: what it packs and unpacks is written out here on
purpose, rather than taken from the modules under test.
"""

from __future__ import annotations

import array
import io
import itertools
import json
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import theus.worker
from theus.stateless import StrictPickler

ZYGOTE = Path(theus.worker.__file__).parent / "zygote.py"
DEADLINE = 20.0
PROTOCOL = 5
_PAGE = 36864  # bytes that a worker and its host share; the status page is the last 4096
_SENT = 24  # where in them the host says how many bytes it has sent by the socket

ARRAY_OF_KEY = 4
CONFIG, ZYGOTE_READY, SPAWN, SPAWNED, SPAWN_FAILED, EXITED = 1, 2, 3, 4, 5, 6
READY, FUNCTION, TASK, FETCH, FETCHED, ALLOC, GRANTED, RESULT, FAILED = range(16, 25)
LOG, RETIRE, RETIRED, EXIT, CANCEL, CANCELLED, FORGET, CHECK, CHECKED = range(25, 34)
NONE, RAW, JSON, PICKLE, STATE = range(5)

_numbers = itertools.count(1)


def by_value(fn: Callable[..., Any] | None) -> bytes:
    """A function as hosts pickle it."""
    stream = io.BytesIO()
    StrictPickler(stream, protocol=5).dump(fn)
    return stream.getvalue()


class Message:
    """A frame that was received."""

    def __init__(self, kind: int, ident: int, payload: bytes, fds: list[int]) -> None:
        self.kind, self.id, self.payload, self.fds = kind, ident, payload, fds
        self.arrays: list[dict[str, Any]] = []  # of a RESULT
        self._at = 0

    def take(self, form: str) -> Any:
        values = struct.unpack_from("<" + form, self.payload, self._at)
        self._at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def text(self) -> str:
        return self.bytes(self.take("I")).decode()

    def bytes(self, count: int) -> bytes:
        data = self.payload[self._at : self._at + count]
        assert len(data) == count, "the frame ends before its fields do"
        self._at += count
        return data

    def value(self) -> Value:
        codec, where, count = self.take("BBH")
        if where == 0:
            lengths = [self.take("I") for _ in range(count)]
            return Value(codec, [self.bytes(n) for n in lengths])
        segment, _size = self.take("QQ")
        return Value(codec, None, segment, [self.take("QQ") for _ in range(count)])

    def array(self) -> dict[str, Any]:
        names = ("segment", "size", "offset", "nbytes", "version", "itemsize", "has_fd", "flags")
        found: dict[str, Any] = dict(zip(names, self.take("QQQQQIBB"), strict=True))
        ndim, _ = self.take("BB")
        found["descr"], found["key"] = self.text(), self.text()
        found["shape"] = [self.take("q") for _ in range(ndim)]
        found["strides"] = [self.take("q") for _ in range(ndim)]
        return found

    def end(self) -> None:
        assert self._at == len(self.payload), "bytes follow the last field"


class Value:
    """A value in a frame."""

    def __init__(
        self,
        codec: int,
        inline: list[bytes] | None,
        segment: int = 0,
        ranges: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.codec, self.inline, self.segment, self.ranges = codec, inline, segment, ranges


class Connection:
    """One end of a stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(DEADLINE)
        self._incoming = b""
        self._fds: list[int] = []

    def send(self, kind: int, ident: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        data = struct.pack("<IHHQ", len(payload), kind, len(fds), ident) + payload
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], rights)
        if sent < len(data):  # to send nothing is an error when the other side has gone
            self.socket.sendall(data[sent:])

    def receive(self) -> Message | None:
        """The next frame; None at the end of the stream."""
        while True:
            if len(self._incoming) >= 16:
                length, kind, nfds, ident = struct.unpack_from("<IHHQ", self._incoming)
                assert length <= 1 << 16, "a frame is too long"
                if len(self._incoming) >= 16 + length:
                    payload = self._incoming[16 : 16 + length]
                    self._incoming = self._incoming[16 + length :]
                    fds, self._fds = self._fds[:nfds], self._fds[nfds:]
                    return Message(kind, ident, payload, fds)
            try:
                data, ancillary, _, _ = self.socket.recvmsg(1 << 16, 1024)
            except ConnectionError:
                continue
            for _level, _kind, content in ancillary:
                self._fds += array.array("i", content)
            if not data:
                return None
            self._incoming += data

    def expect(self, kind: int, ident: int | None = None) -> Message:
        """The next frame, which must be of that type."""
        message = self.receive()
        assert message is not None, f"the stream ended before a frame of type {kind}"
        assert message.kind == kind, f"type {message.kind}: {message.payload!r}"
        assert ident is None or message.id == ident
        return message

    def close(self) -> None:
        self.socket.close()
        for fd in self._fds:
            os.close(fd)


class Segment:
    """A memfd with the host's own view of it."""

    def __init__(self, size: int, content: bytes = b"") -> None:
        self.id = next(_numbers)
        self.size = max(mmap.PAGESIZE, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        self.fd = os.memfd_create("test-segment", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, self.size)
        os.pwrite(self.fd, content, 0)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.fd, length, offset)

    def reader(self) -> int:
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)


def text(string: str) -> bytes:
    return struct.pack("<I", len(string.encode())) + string.encode()


def inline(codec: int, *spans: bytes) -> bytes:
    lengths = b"".join(struct.pack("<I", len(s)) for s in spans)
    return struct.pack("<BBH", codec, 0, len(spans)) + lengths + b"".join(spans)


def call_input(*args: Any, **kwargs: Any) -> bytes:
    return inline(PICKLE, pickle.dumps(("call", args, kwargs)))


def in_segment(codec: int, segment: Segment, *ranges: tuple[int, int]) -> bytes:
    head = struct.pack("<BBHQQ", codec, 1, len(ranges), segment.id, segment.size)
    return head + b"".join(struct.pack("<QQ", *r) for r in ranges)


def descriptor(
    segment: Segment,
    key: str,
    array_like: Any,
    *,
    has_fd: bool,
    flags: int = ARRAY_OF_KEY,
    version: int = 1,
    offset: int = 0,
) -> bytes:
    """The descriptor of an array that lies in a segment and looks like `array_like`."""
    a = array_like
    descr = a.dtype.str if a.dtype.names is None else repr(a.dtype.descr)
    head = struct.pack(
        "<QQQQQIBBBB",
        *(segment.id, segment.size, offset, a.nbytes, version, a.itemsize, has_fd, flags),
        *(a.ndim, 0),
    )
    numbers = struct.pack(f"<{2 * a.ndim}q", *a.shape, *a.strides)
    return head + text(descr) + text(key) + numbers


class Worker:
    """One worker process, as its host sees it."""

    def __init__(self, host: Host, number: int, index: int) -> None:
        self.host = host
        self.number = number
        ours, theirs = socket.socketpair()
        self.page_fd = os.memfd_create("test-page", os.MFD_CLOEXEC)
        os.ftruncate(self.page_fd, _PAGE)
        self.connection = Connection(ours)
        fds = (theirs.fileno(), self.page_fd)
        host.connection.send(SPAWN, number, struct.pack("<I", index), fds)
        theirs.close()
        self._sent = 0
        self.expect = self.connection.expect
        self.granted: dict[int, Segment] = {}
        self.pid = 0
        self.pidfd = -1

    def send(self, kind: int, ident: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a frame by the socket, and say how much there is on it."""
        self.connection.send(kind, ident, payload, fds)
        self._sent += 16 + len(payload)
        os.pwrite(self.page_fd, struct.pack("<Q", self._sent), _SENT)

    def wait_until_spawned(self) -> None:
        spawned = self.host.connection.receive()
        assert spawned is not None
        assert spawned.kind == SPAWNED, spawned.payload
        self.pid = spawned.take("I")
        (self.pidfd,) = spawned.fds

    def wait_until_ready(self) -> None:
        ready = self.expect(READY, self.number)
        assert ready.take("II") == (PROTOCOL, self.pid)

    def status(self) -> tuple[int, int]:
        """(phase, task) of the status page."""
        (word,) = struct.unpack("<Q", os.pread(self.page_fd, 8, _PAGE - 4096))
        return word >> 56, word & (1 << 56) - 1

    # ---- tasks

    def define(
        self, fn: Callable[..., Any] | None, record: Any = None, passes_ctx: bool = True
    ) -> int:
        """Send a function by value, or a record of one's own."""
        number = next(_numbers)
        if record is None:
            record = (None, "task", "", by_value(fn), passes_ctx)
        self.send(FUNCTION, number, inline(PICKLE, pickle.dumps(record)))
        return number

    def submit(
        self,
        function: int,
        value: bytes,
        *,
        target: str = "",
        arrays: Sequence[bytes] = (),
        fds: Sequence[int] = (),
        out_codec: int = PICKLE,
        rng_key: int = 7,
    ) -> int:
        task = next(_numbers)
        head = struct.pack("<QQQBBH", function, 1, rng_key, out_codec, 0, len(arrays))
        self.send(TASK, task, head + text(target) + value + b"".join(arrays), fds)
        return task

    def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
        """Submit a function that takes ctx."""
        return self.submit(self.define(fn), inline(PICKLE, pickle.dumps(("call", args, kwargs))))

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Submit, answer ALLOC meanwhile, and give the result."""
        return self.result(self.call(fn, *args, **kwargs))

    def result(self, task: int) -> Any:
        return self.load(self.answer(RESULT, task))

    def answer(self, kind: int, task: int) -> Message:
        """RESULT or FAILED of a task behind the running time; grants segments meanwhile."""
        while True:
            message = self.connection.receive()
            assert message is not None, "the worker died"
            if message.kind == ALLOC:
                self.grant(message)
                continue
            if message.kind == FAILED and kind == RESULT:
                message.take("Q")
                raise AssertionError("\n".join(message.text() for _ in range(3)))
            assert message.kind == kind, f"type {message.kind}: {message.payload!r}"
            assert message.id == task
            assert message.take("Q") >= 0
            return message

    def failure(self, task: int) -> tuple[str, str, str, Any]:
        """Type, message, traceback and exception (None: it could not be pickled)."""
        message = self.answer(FAILED, task)
        texts = (message.text(), message.text(), message.text())
        value = message.value()
        message.end()
        exception = None if value.codec == NONE else self.unpickle(value)
        return *texts, exception

    def load(self, message: Message) -> Any:
        value = message.value()
        message.arrays = [message.array() for _ in range(message.take("H"))]
        message.end()
        return self.unpickle(value)

    def unpickle(self, value: Value) -> Any:
        spans = self.spans(value)
        return pickle.loads(spans[0], buffers=spans[1:])

    def spans(self, value: Value) -> list[bytearray]:
        if value.inline is not None:
            return [bytearray(s) for s in value.inline]
        segment = self.granted[value.segment]
        assert not is_written_elsewhere(segment), "the writer still has it open or mapped"
        return [bytearray(segment.read(*r)) for r in value.ranges]

    def grant(self, message: Message) -> Segment:
        _task, size = message.take("QQ")
        segment = Segment(size)
        self.granted[segment.id] = segment
        fd = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDWR | os.O_CLOEXEC)
        payload = struct.pack("<BQQB", 0, segment.id, segment.size, 0)
        self.send(GRANTED, message.id, payload, (fd,))
        os.close(fd)
        # As the host does: from here on it holds a reader only, so a lease can prove things.
        reader = segment.reader()
        os.close(segment.fd)
        segment.fd = reader
        return segment

    def kill(self) -> None:
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait_until_dead(self) -> None:
        assert select.select([self.pidfd], [], [], DEADLINE)[0], "the worker lives on"

    def close(self) -> None:
        self.connection.close()
        for fd in (self.page_fd, self.pidfd):
            if fd >= 0:
                os.close(fd)
        for segment in self.granted.values():
            segment.close()


def is_written_elsewhere(segment: Segment) -> bool:
    """Whether any process has the segment open or mapped for writing, by the kernel's word."""
    import fcntl

    try:
        fcntl.fcntl(segment.fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    fcntl.fcntl(segment.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


class Host:
    """Starts a zygote and workers; use it as a context manager."""

    def __init__(
        self,
        *,
        prelude: str = "",
        pass_fds: Sequence[int] = (),
        **changes: Any,
    ) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours)
        config = {
            "protocol": PROTOCOL,
            "sys_path": sys.path,
            "cwd": os.getcwd(),
            "env": dict(os.environ),
            "preload": ["numpy"],
            "threads": 1,
            "seed": 12345,
            "workers": 1,
            "engine": "test",
            "parent": os.getpid(),
            **changes,
        }
        fd = theirs.fileno()
        command = [sys.executable, "-I", str(ZYGOTE), str(fd)]
        if prelude:  # code that runs in the same process first
            become = f"import os, signal, sys; {prelude}; os.execv(sys.executable, {command})"
            command = [sys.executable, "-c", become]
        self.process = subprocess.Popen(
            command,
            pass_fds=(fd, *pass_fds),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        theirs.close()
        self.connection.send(CONFIG, 0, json.dumps(config).encode())
        self.workers: list[Worker] = []
        self.hello: dict[str, Any] = {}

    def wait_until_ready(self) -> dict[str, Any]:
        self.hello = json.loads(self.connection.expect(ZYGOTE_READY).payload)
        return self.hello

    def spawn(self, count: int = 1) -> list[Worker]:
        if not self.hello:
            self.wait_until_ready()
        new = [Worker(self, next(_numbers), i) for i in range(count)]
        self.workers += new
        for worker in new:
            worker.wait_until_spawned()
        for worker in new:
            worker.wait_until_ready()
        return new

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: object) -> None:
        self.connection.close()
        self.output, self.errors = self.process.communicate(timeout=DEADLINE)
        for worker in self.workers:
            if worker.pidfd >= 0:
                worker.wait_until_dead()
            worker.close()
        if exc[0] is not None:
            sys.stderr.write(self.errors.decode())
