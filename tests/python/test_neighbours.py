"""Another library that brings a Go runtime of its own into the process.

`make test-python` builds tests/neighbour and names the library in THEUS_NEIGHBOUR_LIBRARY.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from programs import Ended, run_text

LIBRARY = os.environ.get("THEUS_NEIGHBOUR_LIBRARY", "")

pytestmark = pytest.mark.skipif(
    not LIBRARY,
    reason="THEUS_NEIGHBOUR_LIBRARY is not set; `make test-python` builds that library and sets it",
)

WORK = f"""
import ctypes, os, threading
import numpy as np
from theus import TheusEngine

def load_neighbour(mode):
    neighbour = ctypes.CDLL({LIBRARY!r}, mode=mode)
    neighbour.neighbour_work.restype = ctypes.c_longlong
    assert neighbour.neighbour_work(7) == 64 * sum(range(7))
    return neighbour

def open_engine():
    engine = TheusEngine(workers=2)
    assert engine.run(pow, 2, 3) == 8
    return engine

def total(ctx, n):
    return float(ctx.heavy["x"].sum()) + n

def work(engine, neighbour):
    stop, sums = threading.Event(), []
    def neighbours_work():
        while not stop.is_set():
            sums.append(neighbour.neighbour_work(7))
    thread = threading.Thread(target=neighbours_work)
    thread.start()
    for version in range(30):
        engine.heavy.put("x", np.full(1 << 18, version, np.uint8))
        found = list(engine.map(total, range(20)))
        assert found == [float(version << 18) + n for n in range(20)], found
        engine.reap()
    stop.set()
    thread.join()
    assert set(sums) == {{64 * sum(range(7))}}, set(sums)
    pid = engine.run(os.getpid)
    os.kill(pid, 9)
    while engine.run(os.getpid) == pid:
        pass
"""


@pytest.mark.parametrize("mode", ["os.RTLD_LOCAL", "os.RTLD_GLOBAL"])
@pytest.mark.parametrize("first", ["theus", "the neighbour"])
def test_each_does_its_work(tmp_path: Path, first: str, mode: str) -> None:
    steps = ["engine = open_engine()", f"neighbour = load_neighbour({mode})"]
    if first != "theus":
        steps.reverse()
    text = "\n".join([WORK, *steps, "work(engine, neighbour)", "engine.close()", "print('done')"])
    assert run_text(text, cwd=tmp_path) == Ended(0, "done\n", "")
