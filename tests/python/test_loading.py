"""Loading the library: what is checked before, what is put right after, and what forks see."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from programs import printed_by
from theus import _abi as abi
from theus import _core, _status, errors

OPEN = "from theus import TheusEngine, TheusError\nimport resource\n"
TRY = """
try:
    TheusEngine(workers=1)
except TheusError as error:
    print(error)
"""


def test_too_little_address_space_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    code = (
        OPEN + "import numpy, cloudpickle\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))\n"
        "import theus.engine" + TRY
    )
    assert "RLIMIT_AS" in printed_by(code, tmp_path)


def test_too_few_threads_are_an_error_and_not_the_end(tmp_path: Path) -> None:
    # Root is exempt from the limit, so another user is needed to feel it.
    code = (
        OPEN + "import os, theus.engine\n"
        "if os.getuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (3, hard))" + TRY
    )
    assert "RLIMIT_NPROC is 3" in printed_by(code, tmp_path)


def test_an_interrupt_while_threads_are_probed_leaves_none_and_hangs_nowhere(
    tmp_path: Path,
) -> None:
    code = """
import os, random, signal
from theus import _preflight

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3))
        assert _preflight._threads_left(24) == 24
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
while len(os.listdir("/proc/self/task")) > 1:
    pass
print(interrupted > 3)
"""
    assert printed_by(code, tmp_path) == "True"


def test_the_rest_of_the_package_is_imported_while_the_workers_start(tmp_path: Path) -> None:
    code = """
import sys
from theus import TheusEngine, opening

def large():
    return {"numpy", "theus.session", "theus.tasks", "theus.heavy"} & set(sys.modules)

def open_engine(options):
    seen.append(large())
    return opened(options)

seen, opened = [large()], opening.open_engine
sys.modules["theus.engine"].open_engine = open_engine
with TheusEngine(workers=1) as engine:
    seen.append(len(large()))
print(seen)
"""
    assert printed_by(code, tmp_path) == "[set(), set(), 4]"


@pytest.mark.parametrize("error", ["ImportError('not today')", "KeyboardInterrupt()", "OSError()"])
def test_an_engine_is_closed_if_the_rest_cannot_be_imported(tmp_path: Path, error: str) -> None:
    code = f"""
import os, sys
from theus import TheusEngine

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name == "theus.stats":
            raise {error}

def children():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[1]) == os.getpid():
                yield pid
        except OSError:
            pass

sys.meta_path.insert(0, Refusing())
held = []
for _ in range(2):
    try:
        TheusEngine(workers=2)
    except BaseException as error:
        held.append(error)
    print(len(held), *children())
"""
    assert printed_by(code, tmp_path).split() == ["1", "2"]


def test_a_hook_from_before_the_first_engine_finds_it_open(tmp_path: Path) -> None:
    code = """
import atexit
from theus import TheusEngine

atexit.register(lambda: print(engine.run(len, [1, 2])))
engine = TheusEngine(workers=1)
"""
    assert printed_by(code, tmp_path) == "2"


def test_workers_import_numpy_random_once_where_the_program_uses_it(tmp_path: Path) -> None:
    code = """
import sys
from theus import TheusEngine

def loaded():
    import sys
    return "numpy.random" in sys.modules

with TheusEngine(workers=1) as engine:
    print(engine.run(loaded) == ("numpy.random" in sys.modules))
import numpy.random
with TheusEngine(workers=1) as engine:
    print(engine.run(loaded))
"""
    assert printed_by(code, tmp_path).split() == ["True", "True"]


def test_the_limit_of_descriptors_stays_as_it_was(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code = (
        OPEN + f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
        "with TheusEngine(workers=1) as engine:\n"
        "    import subprocess\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "    print(engine.run(lambda: __import__('resource').getrlimit(7)[0]))\n"
        "    print(subprocess.check_output(['sh', '-c', 'ulimit -n'], text=True).strip())"
    )
    assert printed_by(code, tmp_path).splitlines() == ["256", "256", "256"]


def test_another_abi_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "ABI_VERSION", 999)
    with pytest.raises(ImportError, match="ABI version 1, this package 999"):
        _core.Core(_core.library_path())


def test_a_host_that_unloads_the_library_keeps_it(tmp_path: Path) -> None:
    """Go cannot be unloaded: its threads would run on in memory that is gone."""
    code = (
        OPEN + "import _ctypes, ctypes\nfrom theus._core import core\n"
        "with TheusEngine(workers=1) as engine:\n"
        "    engine.run(pow, 2, 3)\n"
        "    for _ in range(5):\n"
        "        _ctypes.dlclose(ctypes.CDLL(core().path)._handle)\n"
        "        try:\n            _ctypes.dlclose(ctypes.CDLL(core().path)._handle)\n"
        "        except OSError:\n            pass\n"
        "    print(engine.run(pow, 2, 5))"
    )
    assert printed_by(code, tmp_path) == "32"


def test_a_missing_library_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="Install theus again"):
        _core.Core("/nowhere/libtheus.so")


def test_a_forked_child_gets_an_error_and_no_hang(tmp_path: Path) -> None:
    code = """
import gc, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from theus import ForkedProcessError, TheusEngine
engine = TheusEngine(workers=1)
array = engine.heavy.put("x", [1.0, 2.0])
assert engine.run(pow, 2, 3) == 8
state = engine.state
pid = os.fork()
if pid == 0:
    attempts = [
        lambda: engine.run(pow, 2, 3),
        lambda: engine.submit(pow, 2, 3),
        lambda: engine.state,
        lambda: engine.heavy.alloc("y", 3),
        lambda: engine.heavy["x"],
        lambda: state.heavy["x"],
        lambda: engine.compare_and_swap(0, {"a": 1}),
        lambda: engine.stats(),
        lambda: TheusEngine(),
    ]
    caught = 0
    for attempt in attempts:
        try:
            attempt()
        except ForkedProcessError:
            caught += 1
    same = array.tolist() == [1.0, 2.0]
    engine.close()
    del engine, state, array, attempts
    gc.collect()
    os._exit(0 if caught == 9 and same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert engine.run(pow, 2, 4) == 16
print("parent works")
"""
    assert printed_by(code, tmp_path) == "parent works"


def test_a_child_forked_before_the_library_was_loaded_may_use_it(tmp_path: Path) -> None:
    code = """
import os, theus.engine
pid = os.fork()
if pid == 0:
    with theus.TheusEngine(workers=1) as engine:
        ok = engine.run(pow, 2, 3) == 8
    os._exit(not ok)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert printed_by(code, tmp_path) == "0"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (abi.EINVAL, ValueError),
        (abi.EVERSION, ValueError),
        (abi.ENOTFOUND, KeyError),
        (abi.ECONFLICT, errors.ContextError),
        (abi.ECLOSED, errors.EngineClosed),
        (abi.EFORKED, errors.ForkedProcessError),
        (abi.EHEAP, errors.HeapFull),
        (abi.ELIMIT, errors.TheusError),
        (abi.EPANIC, errors.TheusError),
        (abi.TASK_CRASHED, errors.WorkerCrashed),
        (abi.TASK_TIMEOUT, errors.TaskTimeout),
        (12345, errors.TheusError),
    ],
)
def test_statuses_become_typed_errors(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        _status.raise_for(status, "the text", b"")
    assert "the text" in str(caught.value)
    assert isinstance(caught.value, errors.TheusError)
    assert caught.value.code == status


def test_details_become_attributes() -> None:
    crash = b'{"pid": 7, "signal": 11, "exit": 0, "reason": "segmentation fault"}'
    with pytest.raises(errors.WorkerCrashed) as caught:
        _status.raise_for(abi.TASK_CRASHED, "died", crash)
    assert (caught.value.pid, caught.value.signal, caught.value.exit_code) == (7, 11, None)
    long = b'{"message": "the whole of a text that did not fit"}'
    with pytest.raises(errors.TheusError, match="whole of a text that did not fit"):
        _status.raise_for(abi.EPANIC, "the whole of a", long)
    with pytest.raises(errors.TheusError) as odd:
        _status.raise_for(abi.EKERNEL, "x", b"not json")
    assert odd.value.detail == {"text": "not json"}


def test_workers_cannot_open_engines(tmp_path: Path) -> None:
    code = """
from theus import TheusEngine, TheusError
engine = TheusEngine(workers=1)
def nested():
    TheusEngine(workers=1)
try:
    engine.run(nested)
except TheusError as error:
    print(error)
print(engine.run(lambda: "libtheus" in open("/proc/self/maps").read()))
"""
    text, loaded = printed_by(code, tmp_path).splitlines()
    assert "cannot be opened in a worker" in text
    assert loaded == "False"


def test_a_module_that_opens_an_engine_at_its_top(tmp_path: Path) -> None:
    """Workers cannot import it, so its functions travel by value."""
    (tmp_path / "with_engine.py").write_text(
        "from theus import TheusEngine, process\n"
        "engine = TheusEngine(workers=1)\n"
        "@process(parallel=True)\ndef job(ctx, x):\n    return x + 1\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import with_engine\nprint(with_engine.engine.run('job', x=1))"
    )
    assert printed_by(code, tmp_path) == "2"
