"""A worker's connection to the host.

Whoever needs a frame reads: the main loop when it waits for a task, user code when it waits for an
answer. The reader handles every kind of frame that comes (tasks are queued, answers are put down
for who waits for them), so nobody waits for something behind what nobody reads. When several
threads wait, one reads and wakes the others.

Finalizers of the user's may run between any two lines of this file, in a thread that has just taken
a lock here, and may use ctx; so may signal handlers where they are let in (signals.py). So the
locks let their holder in again, and what he finds half done is left to the one he interrupted
(`send`) or refused (`_request`).
"""

from __future__ import annotations

import collections
import errno
import gc
import itertools
import os
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ..errors import ForkedProcessError, HeapFull, SegmentGone, TheusError
from ..mapping import Mapping
from . import frames, wire
from .frames import Channel, Frame
from .process import exit_now, flush_output
from .received import QueuedTask, Received
from .refusals import raise_refusal
from .segments import Segments
from .signals import interruptible, uninterrupted
from .wire import Reader

T = TypeVar("T")

# kinds of FETCH
HEAVY = 0
SEGMENT = 1
STATE = 2
FUNCTION = 3
KEYS = 4
PRIVATE = 5

FULL = 4  # the status of FETCHED that says HeapFull

# What a system call says of a descriptor that is closed, or is not our socket any more.
_NOT_OUR_SOCKET = (errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN)

_SLICE = 0.1  # s; as long as a handler may have to wait for another thread's frame

NO_DESCRIPTORS = (
    "this worker has no descriptor left. Close files and sockets that tasks open, or raise the "
    "limit of open files (ulimit -n)."
)


class Link:
    """Frames to and from the host.

    Args:
        channel: the socket.
        worker: this worker's number.
        cut_off: called before this process ends because something in it has closed the socket.

    Attributes:
        segments: what is mapped.
        forgotten: functions that the host will not ask for again; see `forgotten_functions`.
    """

    def __init__(
        self, channel: Channel, worker: int, cut_off: Callable[[], None] = lambda: None
    ) -> None:
        self.segments = Segments()
        self._cut_off = cut_off
        self._channel = channel
        self._worker = worker
        self._numbers = itertools.count(1)
        self._tasks: collections.deque[QueuedTask] = collections.deque()
        self._functions: dict[int, Received] = {}
        self.forgotten: list[int] = []
        self._free: collections.deque[int] = collections.deque()  # to be acknowledged
        self._checks: list[bool] = []  # CHECKs to answer; whether to collect garbage first
        self._answers: dict[int, Frame | None] = {}
        # What to do with the answers of requests that were interrupted.
        self._unwanted: dict[int, Callable[[Frame], None] | None] = {}
        self._exiting = False
        self._abandoned = False
        self._make_locks()

    def _make_locks(self) -> None:
        self._lock = threading.RLock()  # guards all that frames change
        self._read = threading.Condition(self._lock)  # a frame was read, or nobody reads any more
        self._waiting = 0  # threads that wait for that
        self._reader = 0  # the thread that reads the socket, without holding _lock; 0: none
        self._sending = threading.RLock()  # frames must not mix; taken last
        # Of the thread that holds _sending, alone: nobody else's send may return before its frame
        # is on its way, or be lost with it when a handler raises.
        self._outgoing: collections.deque[tuple[int, int, bytes]] = collections.deque()
        self._in_send = False  # it writes to the socket

    # ---- for the main loop

    def ready(self) -> None:
        self.send(frames.READY, self._worker, wire.u32(frames.PROTOCOL) + wire.u32(os.getpid()))

    @uninterrupted
    def next_task(self) -> QueuedTask | None:
        """The next task to run; None: the worker is to exit."""
        while True:
            if self._tasks:  # one that waited here may have been cancelled meanwhile
                self._drain()
            if not self._has_work():
                self._wait(self._has_work)
                if self._channel.has_more:
                    self._drain()  # its cancellation perhaps
            if self._exiting:
                return None
            if self._checks:
                self._answer_checks()
                continue  # it may have taken long: a CANCEL may have come
            with self._lock:
                if self._tasks:
                    return self._tasks.popleft()

    def _has_work(self) -> bool:
        return bool(self._tasks or self._checks or self._exiting)

    def _answer_checks(self) -> None:
        """Show that this worker lives, and has let go of what nothing but garbage held."""
        with self._lock:
            checks, self._checks = self._checks, []
        if any(checks):
            self.collect_garbage()
        for _ in checks:
            self.send(frames.CHECKED, 0)

    def collect_garbage(self) -> None:
        """Let go of retired memory that only garbage holds.

        Not with a lock held: collecting may run any code of the user's.
        """
        gc.collect()
        self.acknowledge()

    def forgotten_functions(self) -> list[int]:
        """Functions that the host will not ask for again, since the last call."""
        with self._lock:
            forgotten, self.forgotten = self.forgotten, []
        return forgotten

    # ---- for tasks

    @uninterrupted
    def send(self, kind: int, ident: int, payload: bytes = b"") -> None:
        """Send a frame. A worker whose host is gone exits here, silently."""
        if self._abandoned:
            self._refuse_if_abandoned()
        try:
            with self._sending:
                self._outgoing.append((kind, ident, payload))
                if self._in_send:
                    return  # this thread has interrupted itself, and sends it next
                while self._outgoing:
                    self._in_send = True
                    try:
                        while self._outgoing:
                            self._channel.send(*self._outgoing.popleft())
                    finally:
                        self._in_send = False
        except frames.ChannelClosed:
            self._cut_off()  # by a task, perhaps; if the host is gone nobody looks
            leave()
        except OSError as error:
            self._leave_if_cut_off(error)
            raise

    def fetch(self, task: int, kind: int, key: str = "", argument: int = 0) -> Frame:
        """Ask for an array, a segment, state or a function; the answer is a FETCHED frame."""
        return self._request(frames.FETCH, _question(task, kind, key, argument))

    @uninterrupted
    def fetch_bytes(self, task: int, kind: int, key: str, what: str) -> bytes:
        """Ask for a value, STATE or KEYS, and take the bytes of it.

        Raises:
            HeapFull: it is large, and there is no room for it.
            TheusError: it cannot be had.
        """
        received = self.with_room(lambda: self._fetch_value(task, kind, key, what))
        return b"".join(received.take(self, task))

    def _fetch_value(self, task: int, kind: int, key: str, what: str) -> Received:
        with self.fetch(task, kind, key) as answer:
            fields = Reader(answer.payload)
            status = fields.u8()
            if status == FULL:
                raise_refusal(fields.text())
            if status:
                raise TheusError(f"{what} cannot be read: {fields.text()}")
            return Received.of(fields.value(), answer, self.segments)

    @uninterrupted
    def fetch_shared(self, task: int, segment: int, what: str) -> Mapping:
        """A map of a segment that is read in place; see `_fetch_segment`."""
        size, fd, writable = self._fetch_segment(task, segment, what)
        return self.segments.map_shared(segment, size, fd, writable=writable)

    @uninterrupted
    def fetch_written(self, task: int, segment: int, what: str) -> Mapping:
        """A map of an output, to write to it; see `_fetch_segment`."""
        size, fd, _ = self._fetch_segment(task, segment, what)
        return self.segments.map_written(segment, size, fd)

    @uninterrupted
    def fetch_private(self, task: int, segment: int, what: str) -> Mapping:
        """A private map of a segment; see `_fetch_segment`."""
        size, fd, _ = self._fetch_segment(task, segment, what)
        return self.segments.map_private(segment, size, fd)

    @uninterrupted
    def fetch_copy(self, task: int, segment: int, what: str) -> Mapping:
        """A private map of a segment that user code writes to: all of it counts in the budget.

        Raises:
            HeapFull: there is no room. SegmentGone, TheusError: as `_fetch_segment`.
        """
        question = _question(task, PRIVATE, argument=segment)
        with self._request(frames.FETCH, question, self._give_copy_back) as answer:
            fields = Reader(answer.payload)
            status = fields.u8()
            if status == FULL:
                raise_refusal(fields.text())
            if status:
                text = f"{what} (segment {segment}) cannot be mapped: {fields.text()}"
                raise SegmentGone(text, segment=segment)
            described, _ = fields.array()
            reservation = fields.u64()
            fd = answer.take_fd()
        if fd is None:
            self.segments.give_back(reservation)
            raise TheusError(f"{what} cannot be mapped: {NO_DESCRIPTORS}")
        return self.segments.map_private(segment, described.size, fd, reservation)

    def _give_copy_back(self, answer: Frame) -> None:
        """Whoever called `fetch_copy` does not wait for it any more."""
        fields = Reader(answer.payload)
        if not fields.u8():
            fields.array()
            self.segments.give_back(fields.u64())

    def _fetch_segment(self, task: int, segment: int, what: str) -> tuple[int, int, bool]:
        """Ask for a descriptor of a segment: (size, descriptor, whether it is for writing).

        Raises:
            SegmentGone: the host has it no more.
            TheusError: this process has no descriptor left.
        """
        for _ in range(2):
            with self.fetch(task, SEGMENT, argument=segment) as answer:
                fields = Reader(answer.payload)
                if fields.u8():
                    text = f"{what} (segment {segment}) cannot be mapped: {fields.text()}"
                    raise SegmentGone(text, segment=segment)
                described, _ = fields.array()
                fd = answer.take_fd()
            if fd is not None:
                return described.size, fd, bool(described.flags & wire.ARRAY_WRITABLE)
            gc.collect()  # closes files that user code has dropped without closing them
        raise TheusError(f"{what} cannot be mapped: {NO_DESCRIPTORS}")

    def with_room(self, ask: Callable[[], T]) -> T:
        """Ask for memory; when there is none, once more after giving back what is garbage here."""
        try:
            return ask()
        except HeapFull:
            pass
        self.collect_garbage()
        return ask()

    def allocate(self, task: int, size: int, label: str) -> Frame:
        """Ask for a segment to write to; the answer is a GRANTED frame."""
        return self._request(frames.ALLOC, wire.u64(task) + wire.u64(size) + wire.text(label))

    def function(self, ident: int) -> Received | None:
        """A function record that the host sent ahead; given once."""
        return self._functions.pop(ident, None)

    @uninterrupted
    def acknowledge(self) -> None:
        """Tell the host which retired segments this process has let go of."""
        if self._inside():
            return  # whoever was interrupted does it before he waits again
        with self._lock:
            self._acknowledge()

    # ---- for children that user code forks

    def abandon(self) -> None:
        """In a forked child: close the socket, so that its end shows the end of the worker."""
        self._abandoned = True
        self._make_locks()  # a thread that is not here may have held them
        self._channel.close()

    @property
    def abandoned(self) -> bool:
        return self._abandoned

    def _refuse_if_abandoned(self) -> None:
        if self._abandoned:
            raise ForkedProcessError(
                "this process was forked by a task, and only the worker itself talks to the "
                "engine. Arrays that were read before the fork stay valid; take what is needed "
                "from ctx before forking."
            )

    def _inside(self) -> bool:
        """This thread is in the middle of this object already."""
        owned = self._lock._is_owned() or self._sending._is_owned()  # type: ignore[attr-defined]
        return owned or self._reader == threading.get_ident()

    def _refuse_if_inside(self) -> None:
        if self._inside():
            raise TheusError(
                "ctx was used by a signal handler or a finalizer (__del__) that had interrupted "
                "another use of ctx in the same thread, which is not answered yet. Let the handler "
                "set a flag, and do the rest in the task itself."
            )

    # ---- frames

    @uninterrupted
    def _request(
        self, kind: int, payload: bytes, unwanted: Callable[[Frame], None] | None = None
    ) -> Frame:
        """Send a question and wait for its answer.

        Args:
            kind: of the frame.
            payload: of the frame.
            unwanted: called with the answer when the wait for it was interrupted; under the lock.
        """
        self._refuse_if_abandoned()
        self._refuse_if_inside()
        with self._lock:
            number = next(self._numbers)
            self._answers[number] = None
        try:
            self.send(kind, number, payload)
            self._wait(lambda: self._answers[number] is not None)
        except BaseException:  # a signal handler of the user's, mostly
            with self._lock:
                answer = self._answers.pop(number)
                if answer is None:
                    self._unwanted[number] = unwanted
                else:
                    _refuse(answer, unwanted)
            raise
        with self._lock:
            answer = self._answers.pop(number)
        assert answer is not None
        return answer

    def _drain(self) -> None:
        """Handle what has come already: a task may be cancelled, or a segment retired.

        The host tells by the status page whether a cancellation was in time (pool/stopping.go), so
        there must be a fence between that and the look at the ring. Taking the lock is one.
        """
        with self._lock:
            while not self._reader:
                frame = self._channel.buffered()
                if frame is None and self._channel.readable():
                    frame = self._receive()
                if frame is None:
                    self._channel.cut_short = False
                    break
                self._handle(frame)
            self._acknowledge()

    def _wait(self, done: Callable[[], bool]) -> None:
        """Read, or let another thread read, until `done`, which is asked under the lock."""
        with self._lock:
            while not done():
                self._acknowledge()
                if self._reader:
                    self._let_another_read()
                    continue
                self._reader = threading.get_ident()
                try:
                    self._lock.release()
                    try:
                        interruptible(self._channel.wait)
                    finally:
                        self._lock.acquire()
                    frame = self._receive()
                    if frame is not None:
                        self._handle(frame)
                finally:
                    self._reader = 0
                    if self._waiting:
                        self._read.notify_all()

    def _let_another_read(self) -> None:
        """Wait until a frame was read, at most for a slice: handlers are let in after each, who may
        wait for other threads. _lock is held."""
        self._waiting += 1
        try:
            self._read.wait(_SLICE)
        finally:
            self._waiting -= 1
        self._lock.release()
        try:
            interruptible(_nothing)
        finally:
            self._lock.acquire()

    def _receive(self) -> Frame | None:
        try:
            return self._channel.receive()
        except frames.ChannelClosed:
            self._cut_off()  # by a task, perhaps; if the host is gone nobody looks
            leave()
        except OSError as error:
            self._leave_if_cut_off(error)
            raise

    def _leave_if_cut_off(self, error: OSError) -> None:
        if error.errno in _NOT_OUR_SOCKET and not self._abandoned:
            self._cut_off()
            flush_output()
            exit_now(1)

    def _handle(self, frame: Frame) -> None:
        """Do what a frame says. _lock is held."""
        kind = frame.kind
        if kind == frames.TASK:
            task = QueuedTask(frame, self.segments)
            self._channel.may_poll = task.poll
            self._tasks.append(task)
        elif kind in (frames.FETCHED, frames.GRANTED):
            if frame.id in self._answers:  # else who asked was interrupted
                self._answers[frame.id] = frame
                return  # its descriptors are for who asked
            _refuse(frame, self._unwanted.pop(frame.id, None))
        elif kind == frames.FUNCTION:
            value = Reader(frame.payload).value()
            self._functions[frame.id] = Received.of(value, frame, self.segments)
        elif kind == frames.FORGET:
            self._functions.pop(frame.id, None)
            self.forgotten.append(frame.id)
        elif kind == frames.RETIRE:
            self.segments.retire(frame.id)
            self._acknowledge()
        elif kind == frames.CHECK:
            self._checks.append(bool(Reader(frame.payload).u8()))
        elif kind == frames.CANCEL:
            self._cancel(frame.id)
        elif kind == frames.EXIT:
            self._exiting = True
        elif kind != frames.WAKE:  # which is for what is in the ring
            raise frames.ProtocolError(f"the host sent a frame of unknown type {kind}")
        if frame.fds:
            frame.close()

    def _cancel(self, task: int) -> None:
        for queued in self._tasks:
            if queued.id == task:
                self._tasks.remove(queued)
                self.send(frames.CANCELLED, task)
                return

    def _acknowledge(self) -> None:
        if self._abandoned or not (self._free or self.segments.unsettled):
            return
        self._free.extend(self.segments.settle())
        while self._free:
            self.send(frames.RETIRED, self._free[0])
            self._free.popleft()  # only now: a signal handler of the user may raise in between


def _refuse(answer: Frame, unwanted: Callable[[Frame], None] | None) -> None:
    """Give back what came for a request that was interrupted."""
    if unwanted is not None:
        unwanted(answer)
    answer.close()


def _nothing() -> None:
    pass


def _question(task: int, kind: int, key: str = "", argument: int = 0) -> bytes:
    """The payload of FETCH."""
    return wire.u64(task) + bytes((kind,)) + wire.text(key) + wire.u64(argument)


def leave() -> NoReturn:
    """End this process without a word: the host is gone, and nobody waits for anything."""
    flush_output()
    exit_now(0)
