"""Memory that is limited, by heap=, by a control group or by another program: HeapFull says what
was asked, what is in use, which limit it is and who holds most; nobody is killed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import jobs
from conftest import CgroupFactory, EngineFactory
from gate import Gate
from polling import until
from programs import Ended, run_text, started
from theus import HeapFull, allocation

MIB = 1 << 20

FILL = """
import json, os, sys
import numpy as np
from theus import HeapFull, TheusEngine
MIB = 1 << 20

def fill(engine, size, kept):
    try:
        while True:
            kept.append(engine.heavy.alloc(f"array {len(kept)}", size, np.uint8))
    except HeapFull as full:
        return full
"""


def test_the_limit_of_a_control_group(tmp_path: Path, make_cgroup: CgroupFactory) -> None:
    """Refused before the kernel would kill; what the process does not hold can be taken again."""
    text = f"""{FILL}
engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
kept = []
full = fill(engine, 20 * MIB, kept)
detail = full.detail
print(json.dumps(detail))
print(full)
one = kept.pop()
del one
kept.append(engine.heavy.alloc("again", 16 * MIB, np.uint8))
print(len(kept), engine.run(pow, 2, 3))
"""
    outer = make_cgroup(400 * MIB)
    ended = run_text(text, cwd=tmp_path, prefix=outer.entering())
    assert (ended.code, ended.err) == (0, "")
    first, said, last = ended.out.splitlines()
    detail = json.loads(first)
    assert detail["asked"] == 20 * MIB
    assert detail["in_use"] % (20 * MIB) == 0
    assert detail["in_use"] <= detail["limit"] < detail["in_use"] + detail["asked"]
    assert detail["limit"] < 400 * MIB, "the rest is for everything else"
    assert detail["source"] == outer.source
    assert detail["holders"][0]["bytes"] == 20 * MIB
    for part in ("20.0 MiB", outer.source, '"array 0"', "give the process more memory"):
        assert part in said
    assert last == f"{detail['in_use'] // (20 * MIB)} 8"
    assert outer.kills() == 0


def test_an_outer_group_that_is_tighter(tmp_path: Path, make_cgroup: CgroupFactory) -> None:
    text = f"{FILL}\nprint(fill(TheusEngine(workers=1), 20 * MIB, []))"
    outer = make_cgroup(300 * MIB)
    inner = outer.inner("inner", 600 * MIB)
    ended = run_text(text, cwd=tmp_path, prefix=inner.entering())
    assert (ended.code, ended.err) == (0, "")
    assert f"limited by {outer.source}" in ended.out
    assert outer.kills() == inner.kills() == 0


def test_a_group_that_is_full_of_cached_files(tmp_path: Path, make_cgroup: CgroupFactory) -> None:
    """The kernel gives those up before anything else; they count as used, but they are no use."""
    text = f"""{FILL}
with open("cached", "wb") as file:
    for _ in range(32):
        file.write(os.urandom(8 * MIB))
    file.flush()
    os.fsync(file.fileno())
with open("cached", "rb") as file:
    while file.read(8 * MIB):
        pass
os.write(1, b"read\\n")
sys.stdin.readline()
array = TheusEngine(workers=1).heavy.put("x", np.ones(120 * MIB, np.uint8))
print(int(array.sum(dtype=np.uint64)) // MIB)
"""
    outer = make_cgroup(400 * MIB)
    with started(["-c", text], cwd=tmp_path, prefix=outer.entering(), source="") as program:
        assert program.line() == "read"
        cached = outer.usage()
        assert cached > 200 * MIB, f"{cached} bytes are used: nothing was cached"
        assert program.end("\n") == Ended(0, "120\n", "")
    assert outer.kills() == 0
    (tmp_path / "cached").unlink()


def test_two_programs_in_one_group(tmp_path: Path, make_cgroup: CgroupFactory) -> None:
    """Each alone would have room; they look at the same moment, and allocate at once."""
    text = f"""{FILL}
engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
os.write(1, b"ready\\n")
sys.stdin.readline()
kept = []
full = fill(engine, 290 * MIB, kept)
os.write(1, b"%d\\n" % len(kept))
sys.stdin.readline()
assert sum(int(array[::4096].sum()) for array in kept) == 0
print(engine.run(pow, 2, 3), full.detail["source"])
"""
    outer = make_cgroup(500 * MIB)
    prefix = outer.entering()
    with (
        started(["-c", text], cwd=tmp_path, prefix=prefix, source="") as one,
        started(["-c", text], cwd=tmp_path, prefix=prefix, source="") as other,
    ):
        programs = (one, other)
        assert [program.line() for program in programs] == ["ready"] * 2
        for program in programs:
            assert program.process.stdin is not None
            program.process.stdin.write("\n")
            program.process.stdin.flush()
        counts = [int(program.line()) for program in programs]
        assert sum(counts) <= 1, "more than the group has"
        for program in programs:
            assert program.end("\n") == Ended(0, f"8 {outer.source}\n", "")
    assert outer.kills() == 0


# ---- heap= ---------------------------------------------------------------------------------------


def test_the_heap_option_is_the_limit(make_engine: EngineFactory) -> None:
    engine, other = make_engine(heap="32MB", workers=1), make_engine(heap="32MB", workers=1)
    kept = [engine.heavy.alloc(f"a{n}", 8 * MIB, np.uint8) for n in range(4)]
    with pytest.raises(HeapFull) as caught:
        engine.heavy.alloc("b", 4096, np.uint8)
    assert caught.value.detail["source"] == "heap="
    assert caught.value.detail["in_use"] == caught.value.detail["limit"] == 32 * MIB
    assert "raise heap=" in str(caught.value)
    other.heavy.put("c", np.ones(MIB))  # another engine has a limit of its own
    kept.pop()
    engine.heavy.alloc("b", 8 * MIB, np.uint8)
    with pytest.raises(HeapFull):
        make_engine(heap=1, workers=1).heavy.alloc("d", 1, np.uint8)


def test_memory_that_a_worker_still_maps(make_engine: EngineFactory) -> None:
    """It is in use until the worker lets go of it, and HeapFull says so; then it comes back."""
    engine = make_engine(heap="40MB", workers=1)
    engine.heavy.put("held", np.ones(24 * MIB, np.uint8))
    engine.run(jobs.keep, key="held")
    del engine.heavy["held"]
    until(
        lambda: engine.reap() and engine.stats()["memory"]["retiring"],
        "nobody but the worker to have the array",
    )
    with pytest.raises(HeapFull) as caught:
        engine.heavy.alloc("next", 24 * MIB, np.uint8)
    holder = {"label": "held", "bytes": 24 * MIB, "retiring": True}
    assert holder in caught.value.detail["holders"]
    assert '"held" 24.0 MiB (let go, but still mapped by a worker)' in str(caught.value)
    assert engine.heavy.put("small", np.ones(MIB)).sum() == MIB, "the rest can be had"
    engine.run(jobs.let_go)
    array = engine.heavy.alloc("next", 24 * MIB, np.uint8)  # waits for the worker, if it must
    assert array.nbytes == 24 * MIB


def test_memory_that_a_running_task_reads(
    make_engine: EngineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task has its version until it ends, whatever becomes of the array meanwhile."""
    monkeypatch.setattr(allocation, "BACKLOG_PATIENCE", 0.0)
    engine = make_engine(heap="40MB", workers=1)
    engine.heavy.put("held", np.ones(24 * MIB, np.uint8))
    with Gate(tmp_path) as gate:
        slow = engine.submit(jobs.read_and_wait, key="held", reports=gate.reports, gate=gate.path)
        gate.arrived(1)
        del engine.heavy["held"]
        with pytest.raises(HeapFull, match='"held" 24.0 MiB') as caught:
            engine.heavy.alloc("next", 24 * MIB, np.uint8)
        assert str(caught.value).endswith(
            "; unfinished tasks (1) hold 24.0 MiB of it: wait for results before making more"
        )
        assert caught.value.held_by_tasks == 24 * MIB
        gate.open()
        slow.result()
    assert engine.heavy.alloc("next", 24 * MIB, np.uint8).nbytes == 24 * MIB
