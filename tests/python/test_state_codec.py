"""Decoding what docs/internals.md calls the state encoding."""

from __future__ import annotations

import json
import pickle
import struct
import sys
import threading
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

from theus.state import FrozenDict, State, decode_state

RAW, JSON, PICKLE = 1, 2, 3


def encoded(leaves: dict[tuple[str, ...], tuple[int, bytes]], version: int = 7) -> bytes:
    """The encoding, written from its description."""

    def string(data: bytes) -> bytes:
        return struct.pack("<I", len(data)) + data

    out = struct.pack("<QI", version, len(leaves))
    for path, (codec, payload) in leaves.items():
        out += struct.pack("<H", len(path)) + b"".join(string(c.encode()) for c in path)
        out += struct.pack("<B", codec) + string(payload)
    return out


def test_leaves_become_nested_read_only_dicts() -> None:
    data = decode_state(
        encoded(
            {
                ("a", "b.c"): (JSON, b"[1,2]"),
                ("a", "d"): (PICKLE, pickle.dumps({1: (2,)})),
                ("e",): (RAW, b"\x00\xff"),
                ("empty",): (JSON, b"{}"),
                ("text",): (JSON, json.dumps("é").encode()),
            }
        )
    )
    assert data == {
        "a": {"b.c": [1, 2], "d": {1: (2,)}},
        "e": b"\x00\xff",
        "empty": {},
        "text": "é",
    }
    assert type(data["a"]) is FrozenDict
    with pytest.raises(TypeError):
        data["a"]["d"][3] = 1


def test_nothing_is_an_empty_dict() -> None:
    assert decode_state(encoded({})) == {}
    assert decode_state(memoryview(encoded({}))) == {}


def test_arrays_arrive_read_only() -> None:
    data = decode_state(encoded({("x",): (PICKLE, pickle.dumps(np.arange(3)))}))
    with pytest.raises(ValueError, match="read-only"):
        data["x"][0] = 1


@pytest.mark.parametrize("length", range(0, 40, 3))
def test_truncated_bytes_are_an_error(length: int) -> None:
    whole = encoded({("a", "b"): (JSON, b"[1, 2, 3, 4, 5, 6]")})
    assert length < len(whole)
    with pytest.raises(ValueError, match="not an encoded state"):
        decode_state(whole[:length])


def test_unknown_codecs_and_broken_pickles_name_the_path() -> None:
    with pytest.raises(ValueError, match="'a.b' has an unknown codec 9"):
        decode_state(encoded({("a", "b"): (9, b"")}))
    with pytest.raises(ValueError, match="'a' cannot be unpickled"):
        decode_state(encoded({("a",): (PICKLE, b"broken")}))


def test_a_state_is_decoded_once_and_when_needed() -> None:
    loads: list[int] = []

    def load() -> bytes:
        loads.append(1)
        return encoded({("domain", "rate"): (JSON, b"0.5")})

    state = State(7, load, heavy="arrays")
    assert (state.version, state.heavy, loads) == (7, "arrays", [])
    assert state.domain.rate == state["domain"]["rate"] == 0.5
    assert state.to_dict() == {"domain": {"rate": 0.5}}
    assert list(state) == ["domain"]
    assert loads == [1]


def test_a_state_never_changes() -> None:
    state: Any = State(1, lambda: None, heavy=None)
    with pytest.raises(AttributeError, match="never changes"):
        state.anything = 1
    with pytest.raises(TypeError):
        state["x"] = 1
    with pytest.raises(AttributeError, match="did you mean 'version'"):
        _ = state.versoin
    with pytest.raises(TypeError, match=r"ctx\.state"):
        pickle.dumps(state)
    assert state, "also an empty one: compare_and_swap returns it"


def test_threads_may_decode_a_snapshot_at_the_same_time() -> None:
    """Wherever one is when another has decoded it: both see the values, not an empty dict."""
    code = vars(State)["data"].fget.__code__
    moments = 0
    for moment in range(30):
        state = State(7, lambda: encoded({("a",): (2, b"1")}), None)
        moments += _decode_with_another(state, code, moment)
        assert state.data == {"a": 1}, f"after line {moment}"
    assert 3 < moments < 30


def _decode_with_another(state: State, code: CodeType, moment: int) -> bool:
    """Decode, and let another thread do so before a certain line; gives whether there was one."""
    left, met = moment, False

    def look(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left, met
        if frame.f_code is code and event == "line":
            if left == 0:
                met = True
                other = threading.Thread(target=lambda: state.data)
                other.start()
                other.join()
            left -= 1
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        assert state.data == {"a": 1}, f"before line {moment}"
    finally:
        sys.settrace(before)
    return met
