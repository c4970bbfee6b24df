"""One task, from Python arguments to a call of the library, and from its end to a Python result."""

from __future__ import annotations

import contextlib
import ctypes as c
import itertools
import pickle
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _abi as abi
from . import payload, stateless
from ._core import Handle, SmallResult, core, span_array
from ._status import parse_detail, raise_for
from .allocation import with_room
from .arrays import bytes_over
from .errors import (
    EngineClosed,
    LargeArgumentWarning,
    RemoteError,
    RemoteTraceback,
    TheusError,
)
from .functions import FunctionHandle
from .host_arrays import ArrayHandle, ResultArrays, handles_under
from .snapshot_heavy import SnapshotHeavy
from .stateless import StrictPickler

__all__ = [
    "PreparedCall",
    "batch_outcome",
    "decode_small",
    "encode_batch",
    "encode_call",
    "outcome",
]

LARGE = 1 << 20
# Inputs up to this size are copied into a message, and that is all there is to do.
PROMPT = 16 << 10
# Results up to this size are copied out and the library's memory is given back at once.
COPIED_OUT = 64 << 10

_CAUSE: Any = BaseException.__dict__["__cause__"]


_NO_SPANS = span_array(payload.NO_ARGUMENTS.spans)
# A theus_call whose arguments and result are pickles; to copy it takes half as long as to make one.
_PICKLED = bytes(abi.fresh(abi.Call, in_codec=abi.CODEC_PICKLE, out_codec=abi.CODEC_PICKLE))


class PreparedCall:
    """A theus_call, and all that must live until the library has taken it."""

    __slots__ = ("_arrays", "_at", "_kept", "_promptly", "_task", "struct")

    _arrays: Sequence[ArrayHandle]
    _at: SnapshotHeavy | None
    _kept: tuple[object, ...] | None

    def __init__(
        self,
        function: FunctionHandle,
        encoded: payload.Encoded,
        *,
        keys: Sequence[bytes] = (),
        at: SnapshotHeavy | None = None,
        timeout_ms: int = 0,
        retries: int = 0,
        rng_key: int = 0,
        output: ArrayHandle | None = None,
    ) -> None:
        self._task = c.c_uint64()
        bare = encoded is payload.NO_ARGUMENTS
        spans, span_keep = _NO_SPANS if bare else span_array(encoded.spans)
        self.struct = call = abi.Call.from_buffer_copy(_PICKLED)
        # Field by field, and only what is not zero: this is on the way of every task.
        call.function = function.value
        call.in_, call.nin = c.addressof(spans), len(encoded.spans)
        self._at = at
        if at is not None:
            call.at = at.snap
        if timeout_ms:
            call.timeout_ms = timeout_ms
        if retries:
            call.retries = retries
        call.rng_key = rng_key
        bufs = names = None
        self._arrays = function.arrays
        if encoded.arrays:
            self._arrays = handles_under(encoded.arrays, function.arrays)
        if output is not None:
            self._arrays = [output, *self._arrays]  # first: it is never left out of a full frame
        if self._arrays:
            bufs = (c.c_uint64 * len(self._arrays))(*(h.value for h in self._arrays))
            call.bufs, call.nbufs = c.addressof(bufs), len(self._arrays)
        if keys:
            names = (c.c_char_p * len(keys))(*keys)
            call.keys, call.nkeys = c.addressof(names), len(keys)
        self._promptly = len(encoded.spans) == 1 and len(encoded.spans[0]) <= PROMPT
        self._kept = (function, encoded, spans, span_keep, bufs, names)

    @property
    def task(self) -> int:
        """The handle that `submit` has given, or `run` if it gave no result."""
        return self._task.value

    def submit(self, engine: int, *, queue: int = 0, tag: int = 0) -> int:
        """Queue the task; gives its handle, which is released by the caller or by `let_go`."""
        self.struct.queue = queue
        self.struct.tag = tag

        def execute() -> int:
            core().execute(engine, self.struct, self._task, promptly=self._promptly)
            return self.task

        return self._hand_over(engine, execute)

    def run(self, engine: int) -> SmallResult | None:
        """Queue the task, and wait for a moment if it is likely to end right now.

        Returns:
            Its result if it is there and small, and there is no handle. Else None.
        """
        small = None

        def execute() -> int:
            nonlocal small
            small = core().run(engine, self.struct, self._task)
            return self.task

        self._hand_over(engine, execute)
        return small

    def _hand_over(self, engine: int, execute: Callable[[], int]) -> int:
        for handle in self._arrays:
            if handle.engine != engine:
                raise ValueError(
                    "the arguments hold a shared array of another engine, whose workers alone can "
                    "read it. Put it into this one (engine.heavy.put), or pass a copy (np.array)."
                )
        task = with_room(engine, 0, execute)  # large inputs are copied into the heap
        self._kept = self._at = None  # the library has a copy of the input, and pins of its own
        self._arrays = ()
        return task

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


def encode_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> payload.Encoded:
    """The input of a single call.

    Raises:
        StatelessnessError: something in it cannot leave this process.
    """
    if not args and not kwargs:
        return payload.NO_ARGUMENTS
    value = ("call", tuple(args), dict(kwargs))
    if payload.are_plain(args if not kwargs else itertools.chain(args, kwargs, kwargs.values())):
        return payload.encode_plain(value)
    return _encode([value], lambda failure: _explain_call(args, kwargs, failure))


def encode_batch(first: int, items: Sequence[tuple[Any, ...]]) -> payload.Encoded:
    """The input of a batch of `map`: one tuple of arguments for each item.

    Raises:
        StatelessnessError: something in it cannot leave this process.
    """
    if payload.load_surely(itertools.chain.from_iterable(items)):
        values: list[Any] = [("batch", first, list(items))]
    else:
        values = [("each", first, len(items)), *items]
    return _encode(values, lambda failure: stateless.explain(list(items), "items", failure))


def _encode(
    values: Sequence[Any], explain: Callable[[BaseException], BaseException]
) -> payload.Encoded:
    try:
        encoded = payload.encode_each(values)
        if b"StringIO" in encoded.spans[0]:
            # What cloudpickle makes of an open file: a copy of its text, by surprise.
            StrictPickler(stateless.Sink(), protocol=5, buffer_callback=lambda _: None).dump(values)
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
    """What a task that has ended returned; raises what it raised, or how else it ended.

    The task's handle is released.
    """
    taken = False
    try:
        small = core().take(task)
        if small is not None:
            taken = True
            return decode_small(small)
        value = _value_of(engine, task)
        return _loaded(lambda: _decode(engine, task, value))
    finally:
        if not taken:
            core().release(task)


def decode_small(small: SmallResult) -> Any:
    """What a task returned whose small result was taken."""
    codec, data = small
    return None if codec == abi.CODEC_NONE else _loaded(lambda: pickle.loads(data))


def batch_outcome(
    engine: int, task: int, small: SmallResult | None = None
) -> tuple[list[Any], BaseException | None]:
    """What the items of a batch returned, up to the first that failed, and what that one raised.

    Raises what became of the batch as a whole, like `outcome`.
    """
    spans: list[payload.Span]
    if small is not None:
        spans, arrays = [small[1]], None
    else:
        spans, arrays = _spans(engine, task, _value_of(engine, task))
    kind, *rest = _loaded(lambda: payload.decode(spans, arrays))
    values: list[Any]
    failure: payload.Failure | None
    if kind == "batch":
        values, failure = rest
    elif kind == "each":
        values = []
        load = payload.decode_each(spans, arrays)
        load()  # the head once more
        for _ in range(rest[0]):
            try:
                values.append(_loaded(load))
            except Exception as unloadable:  # those before it are good
                return values, unloadable
        failure = load()
    else:
        raise TheusError(f"a worker answered a batch with {kind!r}; please report it")
    return values, None if failure is None else _remote_exception(failure)


def _value_of(engine: int, task: int) -> abi.Value:
    library = core()
    status, value = library.result(task)
    if status == abi.OK:
        return value
    message, detail = library.last_error()
    if status == abi.TASK_FAILED:
        raise _failure(engine, task, value, message, detail)
    if value.blob:
        library.release(value.blob)
    if status == abi.TASK_CANCELLED:
        raise EngineClosed(message or "the engine was closed before the task had ended")
    return raise_for(status, message, detail)


def _loaded(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (TheusError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as failure:  # its class may well call sys.exit() when it is loaded
        raise _unloadable(failure) from failure


def _unloadable(failure: BaseException) -> RemoteError:
    """The error for a result that has come and cannot be loaded."""
    name = type(failure).__qualname__
    try:
        text = str(failure)
        trace = "".join(traceback.format_exception(type(failure), failure, None))
    except BaseException:  # its methods may fail as well
        text = trace = ""
    return RemoteError(
        f"the task ended well, but its result cannot be loaded in this process ({name}: {text}). "
        "Its class has to be importable here, and what its pickle calls has to succeed; or return "
        "plain data: numbers, text, arrays, and lists or dicts of them.",
        type_name=name,
        text=text,
        traceback=trace,
    )


def _decode(engine: int, task: int, value: abi.Value) -> Any:
    if value.codec == abi.CODEC_NONE:
        return None
    return payload.decode(*_spans(engine, task, value))


def _spans(
    engine: int, task: int, value: abi.Value
) -> tuple[list[payload.Span], ResultArrays | None]:
    """The bytes of a value, and what finds the arrays that come with it."""
    arrays = ResultArrays(engine, task, value.nbufs) if value.nbufs else None
    spans = [(span.ptr or 0, span.len) for span in value.spans[: value.nspans]]
    if sum([length for _, length in spans]) <= COPIED_OUT:
        copies: list[payload.Span] = [c.string_at(ptr, length) for ptr, length in spans]
        core().release(value.blob)
        return copies, arrays  # what must be writable is copied once more when it is decoded
    blob = Handle(value.blob)
    views: list[payload.Span] = [
        bytes_over(ptr, length, writable=True, keep=blob) for ptr, length in spans
    ]
    return views, arrays


def _failure(
    engine: int, task: int, value: abi.Value, message: str, detail: bytes
) -> BaseException:
    facts = parse_detail(detail)
    exception = None
    if value.codec != abi.CODEC_NONE:
        exception = _as_exception(lambda: _decode(engine, task, value))
    text, trace = facts.get("message", message), facts.get("traceback", "")
    return _with_cause(exception, facts.get("type", ""), text, trace)


def _remote_exception(failure: payload.Failure) -> BaseException:
    """What an item of a batch raised in the worker, ready to be raised here."""
    exception = None
    pickled = failure.exception
    if pickled is not None:
        exception = _as_exception(lambda: pickle.loads(pickled))
    return _with_cause(exception, failure.type, failure.message, failure.traceback)


def _as_exception(load: Callable[[], Any]) -> Exception | None:
    """What a task raised; None when it cannot be had here as itself."""
    try:
        loaded = load()
    except KeyboardInterrupt:
        raise
    except BaseException:  # its class cannot be imported here, say
        return None
    # By its real type: `__class__` may lie, and what is no Exception would end this process.
    return loaded if issubclass(type(loaded), Exception) else None


def _with_cause(
    exception: Exception | None, type_name: str, text: str, trace: str
) -> BaseException:
    raised: BaseException
    if exception is not None:
        raised = exception
    else:
        raised = RemoteError(
            f"{type_name}{': ' if text else ''}{text} (raised in a worker, and not to be had here "
            "as itself)",
            type_name=type_name,
            text=text,
            traceback=trace,
        )
    # Not by assignment, which a class may refuse: a frozen dataclass does.
    _CAUSE.__set__(raised, RemoteTraceback(trace))
    return raised
