"""Values as spans: what comes out is what went in, and arrays can be written to."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

from theus.payload import decode, encode


class OfThisModule:
    """Importable, so pickled by reference."""

    def __init__(self, value: int) -> None:
        self.value = value


def round_trip(value: Any) -> Any:
    return decode(encode(value).spans)


@pytest.mark.parametrize(
    "value",
    [None, 5, "text", [1, (2, {3: b"4"})], {"a": float("inf")}, ("call", (1,), {"x": 2}), {1, 2}],
)
def test_plain_values(value: Any) -> None:
    assert round_trip(value) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5),
        np.arange(100_000.0),
        np.asfortranarray(np.arange(10_000.0).reshape(100, 100)),
        np.arange(10_000.0).reshape(100, 100)[::2, ::3],
        np.arange(10_000.0)[::-1],
        np.zeros((0, 3)),
        np.array(5.0),
        np.array(["a", "bcd"]),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([{"x": 1}, None], dtype=object),
    ],
)
@pytest.mark.parametrize("locked", [False, True])
def test_arrays_arrive_equal_and_writable(array: np.ndarray[Any, Any], locked: bool) -> None:
    array = array.copy(order="K") if locked else array
    array.flags.writeable = not locked
    found = round_trip({"a": array})["a"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.flags.writeable


def test_large_arrays_are_not_copied_by_encoding() -> None:
    array = np.arange(100_000.0)
    stream, span = encode(array).spans
    assert len(stream) < 1000
    assert np.shares_memory(np.frombuffer(span), array)


def test_large_read_only_arrays_are_not_copied_either() -> None:
    array = np.arange(100_000.0)
    array.flags.writeable = False
    _stream, span = encode([array]).spans
    assert np.shares_memory(np.frombuffer(span), array)


def test_a_span_outlives_the_array_it_was_taken_from() -> None:
    array = np.full(100_000, 7.0)
    array.flags.writeable = False
    span = encode(array).spans[1]
    del array
    assert (np.frombuffer(span) == 7).all()


def test_decoding_lies_over_the_spans() -> None:
    spans = [bytearray(span) for span in encode(np.arange(100_000.0)).spans]
    assert np.shares_memory(np.frombuffer(spans[1]), decode(spans))


def test_read_only_spans_are_copied() -> None:
    spans = [bytes(span) for span in encode(np.arange(100_000.0)).spans]
    assert decode(spans).flags.writeable


def test_there_are_never_more_spans_than_the_wire_takes() -> None:
    arrays = [np.full(1000, i) for i in range(5000)]
    encoded = encode(arrays)
    assert len(encoded.spans) <= 4096
    found = decode(encoded.spans)
    assert all((a == b).all() and b.flags.writeable for a, b in zip(arrays, found, strict=True))
    assert len(encode([np.arange(3)] * 10).spans) == 1, "small buffers are not worth a span"


def test_functions_and_local_classes() -> None:
    class Local:
        x = 3

    offset = 10
    found = round_trip([lambda y: y + offset, Local()])
    assert found[0](5) == 15
    assert found[1].x == 3


def test_importable_things_go_by_reference() -> None:
    assert round_trip(OfThisModule(4)).value == 4
    assert len(encode(OfThisModule).spans[0]) < 200


def test_what_belongs_to_main_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    def helper() -> int:
        return 42

    helper.__module__, helper.__qualname__ = "__main__", "helper"
    monkeypatch.setattr(__main__, "helper", helper, raising=False)
    stream = encode(helper).spans[0]
    monkeypatch.delattr(__main__, "helper")  # over there it is another program
    assert decode([stream])() == 42


@pytest.mark.parametrize(
    "culprit", [threading.Lock(), (i for i in range(3)), [lambda: 1, threading.Lock()]]
)
def test_the_error_is_about_the_culprit(culprit: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot pickle '(_thread.lock|generator)' object"):
        encode({"x": culprit})


def test_endless_nesting_is_an_error_and_not_a_crash() -> None:
    nested: list[Any] = []
    for _ in range(200_000):
        nested = [nested]
    with pytest.raises((RecursionError, pickle.PicklingError)):
        encode(nested)
    while nested:  # freeing it recursively is another test of the interpreter
        nested = nested[0]
