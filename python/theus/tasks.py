"""One task, from Python arguments to a call of the library, and from its end to a Python result."""

from __future__ import annotations

import contextlib
import ctypes as c
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _abi as abi
from . import payload, stateless
from ._core import Handle, core, span_array
from ._status import parse_detail, raise_for
from .arrays import bytes_over
from .errors import (
    EngineClosed,
    LargeArgumentWarning,
    RemoteError,
    RemoteTraceback,
    TheusError,
)
from .host_arrays import ArrayHandle, ResultArrays, handle_under
from .stateless import StrictPickler

__all__ = ["PreparedCall", "encode_batch", "encode_call", "outcome", "remote_exception"]

LARGE = 1 << 20
# Results up to this size are copied out and the library's memory is given back at once.
COPIED_OUT = 64 << 10


class PreparedCall:
    """A theus_call, and all that must live until the library has taken it."""

    __slots__ = ("_arrays", "_kept", "_task", "struct")

    def __init__(
        self,
        function: Handle,
        encoded: payload.Encoded,
        *,
        keys: Sequence[bytes] = (),
        at: int = 0,
        timeout_ms: int = 0,
        retries: int = 0,
        rng_key: int = 0,
    ) -> None:
        self._task = c.c_uint64()
        spans, span_keep = span_array(encoded.spans)
        self.struct = call = abi.fresh(abi.Call)
        # Field by field, and only what is not zero: this is on the way of every task.
        call.function = function.value
        call.in_codec = call.out_codec = abi.CODEC_PICKLE
        call.in_, call.nin = c.addressof(spans), len(encoded.spans)
        call.at = at
        call.timeout_ms = timeout_ms
        call.retries = retries
        call.rng_key = rng_key
        bufs = names = None
        self._arrays = _handles(encoded) if encoded.arrays else []
        if self._arrays:
            bufs = (c.c_uint64 * len(self._arrays))(*(h.value for h in self._arrays))
            call.bufs, call.nbufs = c.addressof(bufs), len(self._arrays)
        if keys:
            names = (c.c_char_p * len(keys))(*keys)
            call.keys, call.nkeys = c.addressof(names), len(keys)
        self._kept = (function, encoded, spans, span_keep, bufs, names)

    def submit(self, engine: int, *, queue: int = 0, tag: int = 0) -> int:
        """Queue the task; gives its handle, which is released by the caller or by `let_go`."""
        for handle in self._arrays:
            if handle.engine != engine:
                raise ValueError(
                    "the arguments hold a shared array of another engine, whose workers alone can "
                    "read it. Put it into this one (engine.heavy.put), or pass a copy (np.array)."
                )
        self.struct.queue = queue
        self.struct.tag = tag
        core().execute(engine, self.struct, self._task)
        return self._task.value

    def let_go(self, *, ended: bool) -> None:
        """Release the task, and end it first unless it has ended. Without a task: nothing.

        Ctrl-C may come after the library took the task and before `submit` has returned its
        handle; the library wrote it here, so even then the task does not run on for ever.
        """
        task = self._task.value
        if not task:
            return
        if not ended:
            with contextlib.suppress(TheusError):  # it ended, and was taken and released
                core().cancel(task)
        core().release(task)


def _handles(encoded: payload.Encoded) -> list[ArrayHandle]:
    found: dict[int, ArrayHandle] = {}
    for array in encoded.arrays:
        handle = handle_under(array)
        if handle is not None:
            found[handle.value] = handle
    return list(found.values())


def encode_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> payload.Encoded:
    """The input of a single call.

    Raises:
        StatelessnessError: something in it cannot leave this process.
    """
    value = ("call", tuple(args), dict(kwargs))
    return _encode(value, lambda failure: _explain_call(args, kwargs, failure))


def encode_batch(first: int, items: Sequence[tuple[Any, ...]]) -> payload.Encoded:
    """The input of a batch of `map`: one tuple of arguments for each item.

    Raises:
        StatelessnessError: something in it cannot leave this process.
    """
    value = ("batch", first, list(items))
    return _encode(value, lambda failure: stateless.explain(list(items), "items", failure))


def _encode(value: Any, explain: Callable[[BaseException], BaseException]) -> payload.Encoded:
    try:
        encoded = payload.encode(value)
        if b"StringIO" in encoded.spans[0]:
            # What cloudpickle makes of an open file: a copy of its text, by surprise.
            StrictPickler(stateless.Sink(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception as failure:
        raise explain(failure) from failure
    size = sum([len(span) for span in encoded.spans]) - len(encoded.spans[0])
    if size >= LARGE:
        warnings.warn(
            f"the arguments hold arrays of {size:,} bytes, which are copied for this call. "
            "engine.heavy.put(key, array) shares them without a copy; read them as ctx.heavy[key].",
            LargeArgumentWarning,
            stacklevel=stateless.outside(),
        )
    return encoded


def _explain_call(
    args: Sequence[Any], kwargs: Mapping[str, Any], failure: BaseException
) -> BaseException:
    if args and not stateless.pickles(list(args)):
        return stateless.explain(list(args), "args", failure)
    return stateless.explain(dict(kwargs), "inputs", failure)


def outcome(engine: int, task: int) -> Any:
    """What a task that has ended returned; raises what it raised, or how else it ended."""
    library = core()
    status, value = library.result(task)
    if status == abi.OK:
        return _decode(engine, task, value)
    message, detail = library.last_error()
    if status == abi.TASK_FAILED:
        raise _failure(engine, task, value, message, detail)
    if value.blob:
        library.release(value.blob)
    if status == abi.TASK_CANCELLED:
        raise EngineClosed(message or "the engine was closed before the task had ended")
    return raise_for(status, message, detail)


def _decode(engine: int, task: int, value: abi.Value) -> Any:
    if value.codec == abi.CODEC_NONE:
        return None
    arrays = ResultArrays(engine, task, value.nbufs) if value.nbufs else None
    spans = [(span.ptr or 0, span.len) for span in value.spans[: value.nspans]]
    if sum([length for _, length in spans]) <= COPIED_OUT:
        copies: list[Any] = [c.string_at(ptr, length) for ptr, length in spans]
        core().release(value.blob)
        return payload.decode(copies, arrays)  # copies what must be writable once more
    blob = Handle(value.blob)
    views = [bytes_over(ptr, length, writable=True, keep=blob) for ptr, length in spans]
    return payload.decode(views, arrays)


def _failure(
    engine: int, task: int, value: abi.Value, message: str, detail: bytes
) -> BaseException:
    facts = parse_detail(detail)
    exception: Any = None
    if value.codec != abi.CODEC_NONE:
        try:
            exception = _decode(engine, task, value)
        except Exception:  # its class cannot be imported here, say
            exception = None
    text, traceback = facts.get("message", message), facts.get("traceback", "")
    return _with_cause(exception, facts.get("type", ""), text, traceback)


def remote_exception(failure: payload.Failure) -> BaseException:
    """What an item of a batch raised in the worker, ready to be raised here."""
    exception: Any = None
    if failure.exception is not None:
        try:
            exception = pickle.loads(failure.exception)
        except Exception:
            exception = None
    return _with_cause(exception, failure.type, failure.message, failure.traceback)


def _with_cause(exception: Any, type_name: str, text: str, traceback: str) -> BaseException:
    raised: BaseException
    if isinstance(exception, BaseException):
        raised = exception
    else:
        raised = RemoteError(
            f"{type_name}{': ' if text else ''}{text} (raised in a worker, and not to be had here "
            "as itself)",
            type_name=type_name,
            text=text,
            traceback=traceback,
        )
    raised.__cause__ = RemoteTraceback(traceback)
    return raised
