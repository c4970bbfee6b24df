"""What came of a task, as the payload of RESULT or FAILED."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays import ShmArray, memory_of
from ..payload import (
    Encoded,
    Failure,
    Span,
    are_plain,
    encode,
    encode_each,
    encode_plain,
    load_surely,
)
from . import failures, frames, wire
from .heavy import TaskHeavy

# The running time, and what a value in a segment takes besides its spans.
_OTHER_FIELDS = 64


_NO_ARRAYS = wire.u16(0)
# What most tasks give that are called for what they do.
_NONE = wire.inline_span(wire.CODEC_PICKLE, bytes(encode_plain(None).spans[0])) + _NO_ARRAYS


class Outcomes(NamedTuple):
    """What a batch gave: the values before the first failure, and that failure."""

    values: list[Any]
    failure: Failure | None


def encode_result(outcome: Any, name: str, codec: int, heavy: TaskHeavy) -> bytes:
    """The fields of RESULT behind the running time.

    Args:
        outcome: what the function returned, or the `Outcomes` of a batch.
        name: the function's, for messages.
        codec: how the host wants it, one of wire.CODEC_*.
        heavy: the task's arrays; those that the result refers to are handed over.

    Raises:
        TypeError: it cannot be encoded so; the text says which part of it.
        HeapFull: there is no room for it.
    """
    codec = codec or wire.CODEC_PICKLE
    if outcome is None and codec == wire.CODEC_PICKLE:
        return _NONE
    if codec == wire.CODEC_PICKLE and are_plain((outcome,)):  # as most are
        encoded = encode_plain(outcome)
    elif isinstance(outcome, Outcomes):
        encoded = _encode_batch(outcome, name, heavy)
    else:
        encoded = _ENCODERS[codec](outcome, name, heavy)
    if not encoded.arrays and len(encoded.spans) == 1 and type(encoded.spans[0]) is bytes:
        span = encoded.spans[0]
        if len(span) + _OTHER_FIELDS <= frames.INLINE_LIMIT:
            return wire.inline_span(codec, span) + _NO_ARRAYS
    descriptors = heavy.hand_over(encoded.arrays)
    arrays = wire.u16(len(descriptors)) + b"".join(descriptors)
    if len(arrays) + _OTHER_FIELDS > frames.INLINE_LIMIT:
        raise TypeError(
            f"the result of {name} refers to {len(descriptors)} arrays of ctx.heavy, more than "
            "fit into one answer. Allocate one array and return that."
        )
    return _value(codec, encoded.spans, heavy, f"result of {name}", len(arrays)) + arrays


def encode_failure(error: BaseException, heavy: TaskHeavy) -> bytes:
    """The fields of FAILED behind the running time."""
    described = failures.describe(error, heavy.keys_read)
    fields = (described.type, described.message, described.traceback)
    texts = b"".join(wire.text(field) for field in fields)
    if described.exception is None:
        return texts + wire.no_value()
    try:
        value = _value(wire.CODEC_PICKLE, [described.exception], heavy, "exception", len(texts))
    except Exception:  # there is no room for it; the texts remain
        value = wire.no_value()
    return texts + value


def _value(codec: int, spans: Sequence[Span], heavy: TaskHeavy, label: str, beside: int) -> bytes:
    """A value for a frame with `beside` bytes of other fields: inline, or in a segment."""
    views = [memoryview(span).cast("B") for span in spans]
    if wire.inline_size(views) + beside + _OTHER_FIELDS <= frames.INLINE_LIMIT:
        return wire.inline_value(codec, views)
    offsets, end = [], 0
    for view in views:
        offsets.append(end)
        end += -(-view.nbytes // wire.SPAN_ALIGN) * wire.SPAN_ALIGN
    segment, size = heavy.write(list(zip(offsets, views, strict=True)), end, label)
    ranges = [(offset, view.nbytes) for offset, view in zip(offsets, views, strict=True)]
    return wire.segment_value(codec, segment, size, ranges)


def _encode_pickle(value: Any, name: str, heavy: TaskHeavy) -> Encoded:
    try:
        return encode(value, refers=heavy.may_refer)
    except MemoryError:
        raise
    except BaseException as error:  # what it holds may well call sys.exit() when it is pickled
        # A new exception without this one as its context: that would keep the pickler's frames.
        refused = failures.unpicklable(value, name, error)
    raise refused


def _encode_batch(outcomes: Outcomes, name: str, heavy: TaskHeavy) -> Encoded:
    values, failure = outcomes
    try:
        return _encode_outcomes(values, failure, heavy)
    except MemoryError:
        raise
    except BaseException:
        pass
    # One of them cannot be pickled; those before it are good, and it fails alone.
    for number, value in enumerate(values):
        try:
            _encode_pickle(value, name, heavy)
        except Exception as error:
            return _encode_outcomes(values[:number], failures.describe(error), heavy)
    return _encode_pickle(("batch", *outcomes), name, heavy)


def _encode_outcomes(values: list[Any], failure: Failure | None, heavy: TaskHeavy) -> Encoded:
    if load_surely(values):
        return encode(("batch", values, failure), refers=heavy.may_refer)
    head = ("each", len(values))
    return encode_each([head, *values, failure], refers=heavy.may_refer)


def _encode_raw(value: Any, name: str, heavy: TaskHeavy) -> Encoded:
    try:
        view = memoryview(value)
        span: Span = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    except TypeError:
        raise TypeError(
            f"{name} was called for raw bytes and returned a {failures.type_name_of(value)}. "
            "Return bytes, a bytearray or an array."
        ) from None
    return Encoded([span], [])


def _encode_json(value: Any, name: str, heavy: TaskHeavy) -> Encoded:
    """JSON; numpy's scalars and arrays become numbers and lists.

    An array that the task allocated, or a view of it, becomes ``{"theus_array": i}``: number i
    of those that come with the result.
    """
    referred: list[ShmArray] = []
    mentioned: list[wire.WireArray] = []

    def plain(part: Any) -> Any:
        if isinstance(part, ShmArray):
            memory = memory_of(part)
            if memory is not None and heavy.may_refer(memory.origin):
                referred.append(part)
                return {"theus_array": heavy.mention(part, mentioned)}
        if isinstance(part, np.ndarray):
            return part.tolist()
        if isinstance(part, np.generic):
            return part.item()
        raise TypeError(f"a {failures.type_name_of(part)} is no JSON")

    try:
        text = json.dumps(value, default=plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"{name} was called for JSON and returned what JSON has no form for: {error}. Return "
            "numbers that are finite, text, lists, and dicts with string keys."
        ) from None
    return Encoded([text.encode()], referred)


_ENCODERS: dict[int, Callable[[Any, str, TaskHeavy], Encoded]] = {
    wire.CODEC_PICKLE: _encode_pickle,
    wire.CODEC_JSON: _encode_json,
    wire.CODEC_RAW: _encode_raw,
}
