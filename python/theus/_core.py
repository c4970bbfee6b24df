"""The shared library, loaded at first use, as plain Python functions.

`core()` loads ``libtheus.so`` once per process, never at import, and returns the one `Core`. Its
methods take and give Python values and integer handles; a status that is not OK becomes a typed
exception. What must be released is either released by the caller or wrapped in a `Handle`.

A child forked from a process that has loaded the library cannot use it: `core()` raises there,
and finalizers that run in it do nothing.
"""

from __future__ import annotations

import ctypes as c
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from . import _abi as abi
from . import identity
from ._preflight import descriptor_limit_kept, require_headroom, require_platform, require_proc
from ._status import FORKED, raise_for
from .errors import ForkedProcessError, TheusError

# Held while the library is loaded, and while this process forks: a child has it whole or not at
# all. Reentrant for a signal handler that forks.
_load_lock = threading.RLock()
_core: Core | None = None
_forked = False

SmallResult = tuple[int, bytes]
"""A result that theus_take gives: its codec and its bytes."""

Buffer = Any  # what has the buffer protocol: bytes, bytearray, memoryview, PickleBuffer


def core() -> Core:
    """The library of this process, loaded when it is first asked for.

    Raises:
        ImportError: it cannot be loaded on this system.
        TheusError: it would not find the threads or the address space that it needs.
        ForkedProcessError: this process was forked from one that uses theus.
    """
    if _forked:
        raise ForkedProcessError(FORKED)
    if _core is not None:
        return _core
    return _load()


def loaded() -> bool:
    """Whether this process has loaded the library and may call it."""
    return _core is not None and not _forked


def is_forked_child() -> bool:
    """Whether this process was forked from one that had loaded the library."""
    return _forked


def library_path() -> str:
    """Where the library is. THEUS_LIBRARY names another build of it, for theus' own tests."""
    return os.environ.get("THEUS_LIBRARY") or os.path.join(os.path.dirname(__file__), "libtheus.so")


def release_later(handle: int) -> None:
    """Release from a finalizer: waits for nothing, and does nothing in a forked child."""
    if _core is not None and not _forked:
        _core.raw["theus_release_later"](handle)


class Handle:
    """Owns one handle of the library; it is released when this object dies."""

    __slots__ = ("__weakref__", "_finalizer", "value")

    def __init__(self, value: int) -> None:
        self.value = value
        self._finalizer = weakref.finalize(self, release_later, value)
        # At exit the process gives everything back; a finalizer then could only unmap memory
        # under the feet of another atexit hook.
        self._finalizer.atexit = False

    def release(self) -> None:
        """Release now; the second time does nothing."""
        self._finalizer()


class Core:
    """The functions of ``theus.h``. Use `core()`, which makes the only one."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            waiting = c.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
            prompt = c.PyDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as failure:
            raise ImportError(
                f"cannot load {path}: {failure}. Install theus again for this platform "
                "(pip install --force-reinstall theus-go)."
            ) from failure
        self.raw: dict[str, Any] = {
            name: _function(prompt if name in abi.PROMPT else waiting, name)
            for name in abi.PROTOTYPES
        }
        self._execute_promptly = _function(prompt, "theus_execute")
        self._local = threading.local()
        # The version is a call into Go, which returns when its runtime has started.
        self.version = (self.raw["theus_version"]() or b"").decode()
        version = self.raw["theus_abi_version"]()
        if version != abi.ABI_VERSION:
            raise ImportError(
                f"{path} speaks ABI version {version}, this package {abi.ABI_VERSION}: they are "
                "from different releases. Install theus again."
            )

    # -- calling -------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function whose last parameter is the error struct; raise unless it is OK."""
        # As `status` does it: every call would pay for passing its arguments on once more.
        status = self.raw[name](*arguments, c.byref(self._error()))
        if status:
            self.fail(status)

    def status(self, name: str, *arguments: Any) -> int:
        """The same, giving the status; `fail` raises what the error struct then says."""
        result: int = self.raw[name](*arguments, c.byref(self._error()))
        return result

    def fail(self, status: int) -> NoReturn:
        """Raise the error of the last call of this thread."""
        raise_for(status, *self.last_error())

    def last_error(self) -> tuple[str, bytes]:
        """Text and detail of the last call of this thread that failed; to be read once."""
        error = self._error()
        message = error.message.decode("utf-8", "replace")
        detail, error.detail, error.message = error.detail, 0, b""
        return message, self.take_blob(detail) if detail else b""

    def _error(self) -> abi.Error:
        try:
            error: abi.Error = self._local.error
        except AttributeError:
            error = self._local.error = abi.fresh(abi.Error)
        return error

    def _handle(
        self, name: str, *arguments: Any, give_back: Callable[[int], object] = release_later
    ) -> int:
        out = c.c_uint64()
        try:
            self.call(name, *arguments, c.byref(out))
            return out.value
        except BaseException:
            # A call that waits gives handlers of signals their turn when it returns: what it has
            # given is nobody's then, and a frame of a stream would be in use for ever.
            if out.value:
                give_back(out.value)
            raise

    # -- blobs and handles ---------------------------------------------------------------------

    def take_blob(self, blob: int) -> bytes:
        """The bytes of a blob, which is released."""
        pointer, length = c.c_void_p(), c.c_uint64()
        try:
            status = self.raw["theus_blob_data"](blob, c.byref(pointer), c.byref(length))
            if status:
                raise_for(status, "a result of the library is gone", b"")
            return c.string_at(pointer.value or 0, length.value) if length.value else b""
        finally:
            self.release(blob)

    def release(self, handle: int) -> None:
        """Release a handle; 0 and stale ones are ignored."""
        if handle:
            self.raw["theus_release"](handle)

    # -- engine --------------------------------------------------------------------------------

    def open(
        self,
        *,
        workers: int,
        heap_bytes: int,
        seed: int,
        name: str,
        python: str,
        worker_main: str,
        cwd: str,
        sys_path: Sequence[str],
        preload: Sequence[str],
        env: Sequence[bytes],
        lazy: bool,
    ) -> int:
        """theus_open."""
        options = abi.fresh(
            abi.Options,
            flags=abi.OPEN_LAZY if lazy else 0,
            workers=workers,
            heap_bytes=heap_bytes,
            seed=seed,
            name=name.encode(),
            python=os.fsencode(python),
            worker_main=os.fsencode(worker_main),
            cwd=os.fsencode(cwd),
            sys_path=_strings([os.fsencode(p) for p in sys_path]),
            preload=_strings([p.encode() for p in preload]),
            env=_strings(env),
        )
        return self._handle(
            "theus_open", c.byref(options), give_back=lambda engine: self.close(engine, 0)
        )

    def close(self, engine: int, grace_ms: int) -> None:
        """theus_close."""
        self.call("theus_close", engine, grace_ms)

    def drain(self, engine: int, timeout_ms: int) -> bool:
        """theus_drain: whether no task is left."""
        return self._done("theus_drain", engine, timeout_ms)

    def stats(self, engine: int) -> bytes:
        """theus_stats."""
        return self.take_blob(self._handle("theus_stats", engine))

    def reap(self, engine: int) -> bytes:
        """theus_reap."""
        return self.take_blob(self._handle("theus_reap", engine))

    def logs(self, engine: int) -> bytes:
        """theus_logs."""
        return self.take_blob(self._handle("theus_logs", engine))

    # -- arrays --------------------------------------------------------------------------------

    def alloc(
        self,
        engine: int,
        key: bytes | None,
        descr: str,
        itemsize: int,
        shape: Sequence[int],
        flags: int,
    ) -> int:
        """theus_alloc or theus_alloc_descr, whichever knows the dtype: a buf handle."""
        dims = _lengths(shape)
        code = abi.DTYPE_CODES.get(descr)
        if code is not None:
            return self._handle("theus_alloc", engine, key, code, len(shape), dims, flags)
        return self._handle(
            "theus_alloc_descr", engine, key, descr.encode(), itemsize, len(shape), dims, flags
        )

    def edit(self, engine: int, key: bytes, flags: int) -> int:
        """theus_edit."""
        return self._handle("theus_edit", engine, key, flags)

    def stream_open(
        self,
        engine: int,
        key: bytes,
        descr: str,
        itemsize: int,
        shape: Sequence[int],
        keep: int,
        *,
        drop_oldest: bool,
    ) -> int:
        """theus_stream_open."""
        dims = _lengths(shape)
        flags = abi.DROP_OLDEST if drop_oldest else 0
        layout = (descr.encode(), itemsize, len(shape), dims)
        return self._handle("theus_stream_open", engine, key, *layout, keep, flags)

    def stream_next(self, stream: int, timeout_ms: int) -> int:
        """theus_stream_next: a buf handle."""
        return self._handle("theus_stream_next", stream, timeout_ms)

    def window_open(
        self, engine: int, key: bytes, descr: str, itemsize: int, shape: Sequence[int], rows: int
    ) -> int:
        """theus_window_open."""
        dims = _lengths(shape)
        layout = (descr.encode(), itemsize, len(shape), dims)
        return self._handle("theus_window_open", engine, key, *layout, rows)

    def window_append(self, window: int, address: int, rows: int) -> int:
        """theus_window_append: a buf handle."""
        return self._handle("theus_window_append", window, address, rows)

    def view(self, buf: int) -> abi.View:
        """theus_view_get."""
        view = abi.fresh(abi.View)
        self.call("theus_view_get", buf, c.byref(view))
        return view

    # -- state ---------------------------------------------------------------------------------

    def snapshot(self, engine: int) -> tuple[int, int]:
        """theus_snapshot: handle and version."""
        snap, version = c.c_uint64(), c.c_uint64()
        self.call("theus_snapshot", engine, c.byref(snap), c.byref(version))
        return snap.value, version.value

    def get(self, snap: int, key: bytes) -> int:
        """theus_get: a buf handle."""
        return self._handle("theus_get", snap, key)

    def export(self, snap: int, path: str = "") -> bytes | None:
        """theus_export: the encoded state, None when there is nothing at the path."""
        out = c.c_uint64()
        status = self.status("theus_export", snap, path.encode(), c.byref(out))
        if status == abi.ENOTFOUND:
            self.last_error()
            return None
        if status:
            self.fail(status)
        return self.take_blob(out.value)

    def heavy_keys(self, snap: int) -> bytes:
        """theus_heavy_keys."""
        return self.take_blob(self._handle("theus_heavy_keys", snap))

    def cas(
        self, engine: int, expected: int, updates: Sequence[abi.Update], *, strict: bool
    ) -> int:
        """theus_cas: the new version."""
        array = (abi.Update * max(1, len(updates)))(*updates)
        version = c.c_uint64()
        flags = abi.STRICT if strict else 0
        self.call("theus_cas", engine, expected, array, len(updates), flags, c.byref(version))
        return version.value

    # -- tasks ---------------------------------------------------------------------------------

    def define(self, engine: int, name: str, spans: Sequence[Buffer]) -> int:
        """theus_define."""
        array, _kept = span_array(spans)
        encoded = name.encode("utf-8", "backslashreplace")
        return self._handle("theus_define", engine, encoded, array, len(spans))

    def execute(self, engine: int, call: abi.Call, task: c.c_uint64, *, promptly: bool) -> None:
        """theus_execute: the handle is put into `task`.

        Args:
            promptly: the input is small, so that nothing but a message is made of it: keep the GIL.
        """
        function = self._execute_promptly if promptly else self.raw["theus_execute"]
        status = function(engine, c.byref(call), c.byref(task), c.byref(self._error()))
        if status:
            self.fail(status)

    def run(self, engine: int, call: abi.Call, task: c.c_uint64) -> SmallResult | None:
        """theus_run: a small result, or None and the handle is in `task`."""
        small = abi.fresh(abi.Small)
        self.call("theus_run", engine, c.byref(call), c.byref(task), c.byref(small))
        return _small_result(small)

    def wait(self, task: int, timeout_ms: int) -> bool:
        """theus_wait: whether the task has ended."""
        return self._done("theus_wait", task, timeout_ms)

    def announce(self, task: int, queue: int, tag: int) -> None:
        """theus_announce."""
        self.call("theus_announce", task, queue, tag)

    def result(self, task: int) -> tuple[int, abi.Value]:
        """theus_result: status (OK or TASK_*) and value; the error text waits for `fail`."""
        value = abi.fresh(abi.Value)
        return self.status("theus_result", task, c.byref(value)), value

    def take(self, task: int) -> SmallResult | None:
        """theus_take: the result, and `task` is released; None when `result` says more."""
        small = abi.fresh(abi.Small)
        self.call("theus_take", task, c.byref(small))
        return _small_result(small)

    def result_buf(self, task: int, index: int) -> int:
        """theus_result_buf."""
        return self._handle("theus_result_buf", task, index)

    def cancel(self, task: int) -> None:
        """theus_cancel."""
        self.call("theus_cancel", task)

    def _done(self, name: str, handle: int, timeout_ms: int) -> bool:
        status = self.status(name, handle, timeout_ms)
        if status == abi.ETIMEDOUT:
            self.last_error()
            return False
        if status:
            self.fail(status)
        return True

    # -- queues --------------------------------------------------------------------------------

    def queue_open(self, engine: int, *, logs: bool) -> tuple[int, int]:
        """theus_queue_open: handle and the descriptor to poll, which the queue owns."""
        queue = self._handle("theus_queue_open", engine, abi.QUEUE_LOGS if logs else 0)
        fd = c.c_int32()
        try:
            self.call("theus_queue_fd", queue, c.byref(fd))
        except TheusError:
            self.release(queue)
            raise
        return queue, fd.value

    def poll(self, queue: int, events: c.Array[abi.Event]) -> int:
        """theus_poll: how many events it has put into `events`."""
        taken = c.c_uint64()
        self.call("theus_poll", queue, events, len(events), c.byref(taken))
        return taken.value

    def collect(self, queue: int, events: c.Array[abi.Event], results: c.Array[abi.Small]) -> int:
        """theus_collect: how many events it has put into `events`, with their `results`."""
        taken = c.c_uint64()
        self.call("theus_collect", queue, events, results, len(events), c.byref(taken))
        return taken.value


_SMALL_DATA = abi.Small.data.offset


def _small_result(small: abi.Small) -> SmallResult | None:
    if not small.taken:
        return None
    return small.codec, c.string_at(c.addressof(small) + _SMALL_DATA, small.len)


def _function(library: c.CDLL, name: str) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = abi.PROTOTYPES[name]
    return function


def span_array(spans: Sequence[Buffer]) -> tuple[Any, list[Any]]:
    """An array of theus_span over `spans`, and what must live as long as it is used."""
    if len(spans) == 1 and type(spans[0]) is bytes:  # as most are
        return abi.GivenSpan(spans[0], len(spans[0])), [spans[0]]
    array: Any = (abi.GivenSpan * (len(spans) or 1))()
    kept: list[Any] = []
    for index, buffer in enumerate(spans):
        if type(buffer) is bytes:
            array[index] = (buffer, len(buffer))
            kept.append(buffer)
            continue
        raw = buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)
        view = raw.cast("B")
        if view.nbytes:
            # numpy gives the address of a read-only buffer too, ctypes only of a writable one.
            import numpy as np  # a program need not have it when the first engine is opened

            bytes_ = np.frombuffer(view, dtype=np.uint8)
            array[index] = (bytes_.__array_interface__["data"][0], view.nbytes)
            kept.append(bytes_)
    return array, kept


def _lengths(shape: Sequence[int]) -> Any:
    """An array of a shape's lengths; of one that nobody reads where it has none."""
    return (c.c_int64 * max(1, len(shape)))(*shape)


def _strings(items: Sequence[bytes]) -> Any:
    """A NULL-ended array of C strings."""
    return (c.c_char_p * (len(items) + 1))(*items, None)


def _load() -> Core:
    global _core
    with _load_lock:
        if _core is None:
            require_platform()
            require_proc()
            _refuse_in_worker()
            require_headroom()
            with descriptor_limit_kept():
                _core = Core(library_path())  # its first call into Go returns when Go has started
        return _core


def _refuse_in_worker() -> None:
    """A worker maps memory by itself; a second runtime in each would cost threads and time."""
    if identity.owner() != identity.token_of(os.getpid()):
        raise TheusError(
            "an engine cannot be opened in a worker process. Submit from the program that opened "
            "the engine; in a process, read ctx.heavy and ctx.state, and return what is to change. "
            "(A module whose top level opens an engine: move that into a function.)"
        )


def _begin_in_child() -> None:
    global _forked
    _forked = _core is not None or _forked
    _load_lock.release()


os.register_at_fork(
    before=_load_lock.acquire,
    after_in_parent=_load_lock.release,
    after_in_child=_begin_in_child,
)
