"""A bug in the library ends no process: every function of ``theus.h`` is made to panic.

The library is a build of its own, with the tag panicinject; `make test-python` builds it and names
it in THEUS_INJECT_LIBRARY. The host that suffers is panicking_host.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from panicking_host import functions
from programs import Ended, run_text
from theus import _abi as abi

LIBRARY = os.environ.get("THEUS_INJECT_LIBRARY", "")
PROGRAM = Path(__file__).with_name("panicking_host.py")

pytestmark = pytest.mark.skipif(
    not LIBRARY,
    reason="THEUS_INJECT_LIBRARY is not set; `make test-python` builds that library and sets it",
)

# They name no engine, so there is none to poison.
WITHOUT_ENGINE = {"theus_open", "theus_blob_data"}


def suffer(what: str) -> list[dict[str, Any]]:
    """Run the host; gives what it printed, if it lived to the end."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), LIBRARY, what],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    last = reports[-1].get("name", "its end") if reports else "its start"
    assert done.returncode == 0, f"the host died after {last}: {done.stderr}"
    assert done.stderr == ""
    return reports


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    """What each function did, by name, and under "" what was left at the end."""
    return {report.get("name", ""): report for report in suffer("each")}


def test_the_header_was_understood() -> None:
    header = functions()
    assert len(header) == PROGRAM.parents[2].joinpath("include/theus.h").read_text().count(
        "\nint32_t theus_"
    )
    assert header["theus_release"] == ["uint64_t handle"]
    assert header["theus_cas"][2] == "const theus_update *updates"


@pytest.mark.parametrize("name", functions())
def test_a_panic_becomes_a_status(reports: dict[str, Any], name: str) -> None:
    report = reports[name]
    assert report["status"] == abi.EPANIC
    if any(parameter == "theus_error *err" for parameter in functions()[name]):
        assert f"internal error in {name}: injected into {name}" in report["text"]
        assert "please report it" in report["text"]


@pytest.mark.parametrize("name", [name for name in functions() if name not in WITHOUT_ENGINE])
def test_its_engine_is_poisoned_with_the_first_cause(reports: dict[str, Any], name: str) -> None:
    after = reports[name]["after"]
    assert "theus_execute" in after
    assert len(after) > 10
    for other, (status, text) in after.items():
        assert status == abi.EPOISONED, other
        assert f"injected into {name}" in text, other


@pytest.mark.parametrize("name", functions())
def test_a_poisoned_engine_closes(reports: dict[str, Any], name: str) -> None:
    end = reports[name]["end"]
    assert end["theus_close"] == abi.OK
    # The handle that theus_release was given is gone only if it panicked too late.
    assert set(end.values()) == {abi.OK}


def test_nothing_is_left_of_poisoned_engines(reports: dict[str, Any]) -> None:
    assert reports[""] == {"children": [], "maps": [], "descriptors": []}


def test_a_panic_ends_running_tasks_and_their_workers() -> None:
    report, left = suffer("running")
    assert report["waited"] == abi.OK
    assert report["ended"] == abi.EPOISONED
    assert "injected into theus_snapshot" in report["text"]
    assert len(report["workers"]) == 2, "a zygote and its worker"
    assert set(report["end"].values()) == {abi.OK}
    assert left == {"children": [], "maps": [], "descriptors": []}


def test_a_panic_as_python_sees_it(tmp_path: Path) -> None:
    text = """
import ctypes, signal
from theus import TheusEngine, TheusError
from theus._core import core

def told(ask):
    try:
        return ask()
    except TheusError as error:
        return error.code, str(error).splitlines()[0]

engine = TheusEngine(workers=1)
array = engine.heavy.put("x", [1.0, 2.0])
pending = engine.submit(signal.pause)
inject = ctypes.CDLL(core().path).theus_test_panic
inject(b"theus_snapshot")
print(told(lambda: engine.state))
inject(None)
print(told(lambda: engine.state))
print(told(lambda: engine.run(pow, 2, 3)))
print(told(lambda: pending.result(60)))
print(array.sum())
engine.close()
with TheusEngine(workers=1) as other:
    print(other.run(pow, 2, 3))
"""
    ended = run_text(text, cwd=tmp_path, env={"THEUS_LIBRARY": LIBRARY})
    cause = "internal error in theus_snapshot: injected into theus_snapshot"
    first = (abi.EPANIC, f"{cause}; please report it")
    later = (
        abi.EPOISONED,
        f"the engine stopped after an internal error; please report it: {cause}",
    )
    assert ended == Ended(0, f"{first}\n{later}\n{later}\n{later}\n3.0\n8\n", "")


def test_a_panic_in_the_background_poisons_the_engine_that_it_belongs_to(tmp_path: Path) -> None:
    text = """
import ctypes
from theus import TheusEngine, TheusError
from theus._core import core

engine, other = TheusEngine(workers=1), TheusEngine(workers=1)
array = engine.heavy.alloc("x", 1000)
inject = ctypes.CDLL(core().path).theus_test_panic
inject(b"background release")
del array
while True:
    try:
        engine.stats()
    except TheusError as error:
        print(error.code, str(error).splitlines()[0])
        break
inject(None)
array = other.heavy.alloc("x", 1 << 20)
del array
while not other.stats()["reaper"]["segments"]:
    pass
print(other.run(pow, 2, 3))
"""
    ended = run_text(text, cwd=tmp_path, env={"THEUS_LIBRARY": LIBRARY})
    cause = "internal error in background release: injected into background release"
    poisoned = f"the engine stopped after an internal error; please report it: {cause}"
    assert ended == Ended(0, f"{abi.EPOISONED} {poisoned}\n8\n", "")


@pytest.mark.parametrize("order", ["never", "before", "after"])
def test_a_nil_pointer_of_the_library(tmp_path: Path, order: str) -> None:
    """Go makes a panic of the fault, unless faulthandler was enabled later and gets it first: then
    the program ends, with its report, and nothing is left behind.
    """
    enable = "import faulthandler; faulthandler.enable()"
    text = f"""
{enable if order == "before" else ""}
import ctypes
from theus import TheusEngine, TheusError
from theus._core import core

engine = TheusEngine(workers=1)
engine.run(pow, 2, 3)
{enable if order == "after" else ""}
inject = ctypes.CDLL(core().path).theus_test_panic
inject(b"theus_snapshot by a nil pointer")
try:
    engine.state
except TheusError as error:
    print(error.code, str(error).splitlines()[0])
"""
    ended = run_text(text, cwd=tmp_path, env={"THEUS_LIBRARY": LIBRARY})
    if order == "after":
        assert ended.code in (-signal.SIGSEGV, -signal.SIGABRT)  # Go's handler comes last
        assert ended.err.startswith("Fatal Python error: Segmentation fault\n")
        return
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{abi.EPANIC} internal error in theus_snapshot: runtime error: ")
