"""Python values as the spans of bytes that travel between processes.

Span 0 is a pickle, protocol 5; the others are its out-of-band buffers, so that a large array is
copied once, straight into the shared segment that carries it. Arrays that lie in shared memory
already are referred to and not copied at all.
"""

from __future__ import annotations

import copyreg
import ctypes
import functools
import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arrays import Origin, Resolver, ShmArray, collecting, resolving

__all__ = [
    "Encoded",
    "Failure",
    "Span",
    "are_plain",
    "decode",
    "decode_each",
    "encode",
    "encode_each",
    "encode_plain",
    "load_surely",
]

Span = bytes | bytearray | memoryview

_PROTOCOL = 5

# A span costs more than copying a small buffer into the stream.
_WORTH_A_SPAN = 1 << 12
# The wire takes 4,096 spans in a value; the rest of a very long list goes into the stream.
_MOST_SPANS = 4000

# Nothing in these can refer to shared memory or to a class of the program: what is made of them
# needs none of what `encode` does besides pickling.
_PLAIN = frozenset({type(None), bool, int, float, complex, str})

# Nothing of the program is called when one of these is loaded.
_SURE = frozenset({*_PLAIN, bytes, bytearray, *np.sctypeDict.values()}) - {np.object_, np.void}

# Under these names a pickle means "the same module over there", which is another program.
_MAIN_MODULES = (b"__main__", b"__mp_main__")


class Encoded(NamedTuple):
    """A value ready to be sent.

    Attributes:
        spans: the pickle, then its buffers, which are views of the value's own memory.
        arrays: the shared arrays that the pickle refers to, in the order of their first mention;
            they must stay alive until the receiver has resolved them.
    """

    spans: list[Span]
    arrays: list[ShmArray]


class Failure(NamedTuple):
    """How one item of a batch failed.

    Attributes:
        type: the exception's type, with its module unless it is a builtin.
        message: its text.
        traceback: the formatted traceback.
        exception: a pickle of the exception, or None when it cannot be pickled and loaded again.
    """

    type: str
    message: str
    traceback: str
    exception: bytes | None


def encode(value: Any, *, refers: Callable[[Origin], bool] | None = None) -> Encoded:
    """Pickle a value for another process.

    The C pickler is tried first. What it cannot take (functions, lambdas), or what would mean
    something else over there (classes of ``__main__``), is pickled by cloudpickle.

    Args:
        value: anything that can be pickled.
        refers: which shared memory may be referred to; see `theus.arrays.collecting`.

    Raises:
        Exception: whatever the pickler raised; it is not wrapped, so that the caller can explain.
    """
    if type(value) in _PLAIN:
        return encode_plain(value)
    return _encode_all((value,), refers)


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all are numbers, texts or None: what holds nothing else goes to `encode_plain`."""
    return _PLAIN.issuperset(map(type, values))


def encode_plain(value: Any) -> Encoded:
    """What `encode` gives for a value that holds nothing but numbers, texts and None."""
    return Encoded([pickle.dumps(value, _PROTOCOL)], [])


# What a call without arguments gives, as many do.
NO_ARGUMENTS = encode_plain(("call", (), {}))


def encode_each(
    values: Sequence[Any], *, refers: Callable[[Origin], bool] | None = None
) -> Encoded:
    """Pickle values one after the other, so that one that does not load costs no other.

    Args:
        values: anything that can be pickled. What several of them hold stays one object.
        refers: as for `encode`.

    Raises:
        Exception: whatever the pickler raised.
    """
    return _encode_all(values, refers)


def load_surely(values: Iterable[Any]) -> bool:
    """Whether all of the values are of kinds whose loading cannot fail."""
    values = list(values)
    kinds = set(map(type, values)) - _SURE
    if kinds <= {np.ndarray}:
        return not kinds or not any(type(v) is np.ndarray and v.dtype.hasobject for v in values)
    return False


def _encode_all(values: Sequence[Any], refers: Callable[[Origin], bool] | None) -> Encoded:
    encoded: Encoded | None
    try:
        encoded, locked = _encode(values, refers, _plain_dumps)
        if locked:
            encoded, _ = _encode(values, refers, _unlocking_dumps)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        encoded = None
    if encoded is None or any(name in encoded.spans[0] for name in _MAIN_MODULES):
        # Outside of the handler: the pickler that knows more says what the obstacle is.
        encoded, _ = _encode(values, refers, _cloud_dumps)
    return encoded


def decode(spans: Sequence[Span], resolver: Resolver | None = None) -> Any:
    """The value again.

    Args:
        spans: as `encode` made them. Arrays lie over spans 1 and up without a copy where those
            are writable; where they are read-only they are copied, for arrays from a pickle can
            always be written to.
        resolver: finds shared arrays that the pickle refers to; None: the one in force.

    Raises:
        Exception: whatever the unpickler raised.
    """
    buffers = [_writable(span) for span in spans[1:]]
    if resolver is None:
        return pickle.loads(spans[0], buffers=buffers)
    with resolving(resolver):
        return pickle.loads(spans[0], buffers=buffers)


def decode_each(spans: Sequence[Span], resolver: Resolver | None = None) -> Callable[[], Any]:
    """The values of `encode_each`, in order: each call loads one.

    Args:
        spans, resolver: as for `decode`.
    """
    buffers = [_writable(span) for span in spans[1:]]
    unpickler = pickle.Unpickler(io.BytesIO(spans[0]), buffers=buffers)
    if resolver is None:
        return unpickler.load

    def load() -> Any:
        with resolving(resolver):
            return unpickler.load()

    return load


class _Buffers:
    """Decides which buffers travel beside the pickle, and keeps those."""

    __slots__ = ("locked", "spans")

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.locked = False  # one of them is read-only, and would be over there

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Called by the pickler; True: copy it into the stream."""
        span = buffer.raw()  # contiguous: picklers refuse others, and numpy copies them first
        if span.readonly:
            self.locked = True
        elif span.nbytes < _WORTH_A_SPAN:
            return True
        if len(self.spans) >= _MOST_SPANS:
            return True
        self.spans.append(span)
        return False


def _encode(
    values: Sequence[Any],
    refers: Callable[[Origin], bool] | None,
    dumps: Callable[[Sequence[Any], _Buffers], bytes],
) -> tuple[Encoded, bool]:
    buffers = _Buffers()
    with collecting(refers) as arrays:
        stream = dumps(values, buffers)
    return Encoded([stream, *buffers.spans], arrays), buffers.locked


def _plain_dumps(values: Sequence[Any], buffers: _Buffers) -> bytes:
    if len(values) == 1:
        return pickle.dumps(values[0], _PROTOCOL, buffer_callback=buffers)
    stream = io.BytesIO()
    return _dump(pickle.Pickler(stream, _PROTOCOL, buffer_callback=buffers), stream, values)


def _unlocking_dumps(values: Sequence[Any], buffers: _Buffers) -> bytes:
    """The same, with read-only arrays made to arrive writable."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, _PROTOCOL, buffer_callback=buffers)
    pickler.dispatch_table = {**copyreg.dispatch_table, np.ndarray: _reduce_array}
    return _dump(pickler, stream, values)


def _cloud_dumps(values: Sequence[Any], buffers: _Buffers) -> bytes:
    stream = io.BytesIO()
    pickler = _by_value_pickler()(stream, _PROTOCOL, buffer_callback=buffers)
    return _dump(pickler, stream, values)


@functools.cache
def _by_value_pickler() -> type[Any]:
    # cloudpickle is not imported with the module: who sends only plain values never needs it.
    from .by_value import ByValuePickler

    class UnlockingPickler(ByValuePickler):
        """Makes read-only arrays arrive writable."""

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is np.ndarray:
                return _reduce_array(obj)
            return super().reducer_override(obj)

    return UnlockingPickler


def _dump(pickler: pickle.Pickler, stream: io.BytesIO, values: Sequence[Any]) -> bytes:
    for value in values:
        pickler.dump(value)
    return stream.getvalue()


def _reduce_array(array: np.ndarray[Any, Any]) -> Any:
    """Pickle an array so that the receiver may write to it, even when it is read-only here."""
    reduced: Any = array.__reduce_ex__(_PROTOCOL)
    if array.flags.writeable:
        return reduced
    function, arguments, *rest = reduced
    # Without a buffer the elements are copied into the stream, and are writable after that.
    aliased = (_alias(a, array) if isinstance(a, pickle.PickleBuffer) else a for a in arguments)
    return (function, tuple(aliased), *rest)


def _alias(buffer: pickle.PickleBuffer, owner: Any) -> pickle.PickleBuffer:
    """The same memory as a buffer that is not marked read-only: the mark would travel with it."""
    raw = buffer.raw()
    address = owner.__array_interface__["data"][0]
    # Only read from. `owner` is a contiguous array, so it begins at its address.
    alias = (ctypes.c_char * raw.nbytes).from_address(address)
    alias.owner = owner  # type: ignore[attr-defined]  # keeps the memory alive
    return pickle.PickleBuffer(alias)


def _writable(span: Span) -> Span:
    if isinstance(span, bytearray):
        return span
    view = memoryview(span)
    return bytearray(view) if view.readonly else view
