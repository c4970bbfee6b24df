"""Every test ends with nothing left: no descriptor, map, process, thread or shared page."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import leaks
import theus
import this_run
from gate import Gate
from memory_cgroup import MemoryCgroup, NoCgroup, memory_cgroup
from polling import until
from processes import doings
from shared_engine import shared_engine as shared_engine  # a fixture
from theus import TheusEngine

EngineFactory = Callable[..., TheusEngine]
CgroupFactory = Callable[[int], MemoryCgroup]


@pytest.fixture(scope="session", autouse=True)
def installed_package() -> None:
    """The tests run what users install. THEUS_TEST_TREE=1 lets them run the source tree."""
    if os.environ.get("THEUS_TEST_TREE") != "1":
        assert "site-packages" in Path(theus.__file__).parts, (
            f"theus is imported from {theus.__file__}: install the wheel (make test-python), or "
            "set THEUS_TEST_TREE=1"
        )


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell has its background jobs ignore Ctrl-C, nohup a hang-up; their children inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def loaded_library(installed_package: None) -> None:
    """Load the library once: its runtime keeps a few descriptors and threads of its own."""
    for variable in [name for name in os.environ if name.startswith("THEUS_")]:
        if variable not in ("THEUS_TEST_TREE", "THEUS_INJECT_LIBRARY", "THEUS_LIBRARY"):
            del os.environ[variable]
    before = leaks.holdings()
    with TheusEngine(workers=1) as engine:
        assert engine.submit(pow, 2, 3).result(60) == 8
        engine.heavy.put("warm", [1.0])
    del engine
    left = leaks.left_over(before._replace(descriptors=leaks.holdings().descriptors))
    assert not left, left
    # Every test looks for garbage. It need not look at what pytest and the modules hold: a hundred
    # thousand objects, which took longer than most tests.
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def no_process_left(loaded_library: None) -> Iterator[None]:
    """Fail a module whose fixtures leave a process: `nothing_left` looks after they were made."""
    before = this_run.started()
    yield
    with contextlib.suppress(AssertionError):
        until(lambda: not this_run.started() - before, "its processes to end")
    left = this_run.started() - before
    assert not left, f"fixtures of the module left behind: {doings(left)}"


@pytest.fixture(autouse=True)
def nothing_left(loaded_library: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something behind."""
    shared = "shared_engine" in request.fixturenames
    engine = request.getfixturevalue("shared_engine") if shared else None
    before = leaks.holdings()
    yield
    if engine is not None:
        engine.reap()  # what it keeps for the next array would go by itself, a second later
    sys.last_value = sys.last_traceback = None  # type: ignore[assignment]
    left = leaks.left_over(before)
    assert not left, f"the test left behind: {left}"


@pytest.fixture
def make_engine(nothing_left: None) -> Iterator[EngineFactory]:
    """Makes engines that are closed after the test."""
    engines: list[TheusEngine] = []

    def make(*args: object, **options: object) -> TheusEngine:
        options.setdefault("workers", 2)
        engine = TheusEngine(*args, **options)  # type: ignore[arg-type]
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine: EngineFactory) -> TheusEngine:
    """An engine with two workers."""
    return make_engine()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Where tasks of a test wait."""
    with Gate(tmp_path) as gate:
        yield gate


@pytest.fixture
def make_cgroup() -> Iterator[CgroupFactory]:
    """Makes memory cgroups with a limit in bytes; skips the test where none can be made."""
    with contextlib.ExitStack() as stack:

        def make(limit: int) -> MemoryCgroup:
            try:
                return stack.enter_context(memory_cgroup(limit))
            except NoCgroup as refused:
                pytest.skip(str(refused))

        yield make
