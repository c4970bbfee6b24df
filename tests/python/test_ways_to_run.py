"""Every way in which people start programs: they end well, and leave nothing behind.

The programs here have the calls of the documentation's first pages: a process in a module of its
own, and an orchestrator that allocates, fills, swaps and executes, and never closes anything.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from programs import Ended, run, run_text, started

MODULE = '''
"""What the workers do."""

import numpy as np
from theus.contracts import process


@process(parallel=True)
def spread_of_readings(ctx):
    readings = ctx.heavy.get("readings")
    if readings is None:
        return {"error": "no readings were published"}
    return {"spread": float(np.ptp(readings)), "readings": int(readings.size)}
'''

ORCHESTRATOR = """
import os

os.environ["THEUS_USE_PROCESSES"] = "1"

import asyncio

import numpy as np
import measuring
from theus import TheusEngine


async def main():
    engine = TheusEngine(...)
    readings = engine.heavy.alloc("readings", shape=(600, 500), dtype=np.float32)
    readings[:] = np.linspace(-2.0, 5.0, 600 * 500).reshape(600, 500)
    engine.compare_and_swap(engine.state.version, heavy={"readings": readings})
    print(await engine.execute("spread_of_readings"))


asyncio.run(main())
"""
SHOWN = "{'spread': 7.0, 'readings': 300000}"


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """A working directory without anything in it."""
    directory = tmp_path / "cwd"
    directory.mkdir()
    return directory


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, str]:
    """An environment in which the workers' module can be imported, from somewhere else."""
    directory = tmp_path / "modules"
    directory.mkdir()
    (directory / "measuring.py").write_text(MODULE)
    return {"PYTHONPATH": str(directory)}


def assert_clean(ended: Ended, out: str, cwd: Path) -> None:
    """The program printed this and no more, and its directory is as it was."""
    assert ended.err == ""
    assert ended.out == out
    assert ended.code == 0
    assert list(cwd.iterdir()) == []


# ---- the two templates ---------------------------------------------------------------------------


def test_from_a_file(tmp_path: Path, cwd: Path) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "measuring.py").write_text(MODULE)
    (program / "main.py").write_text(ORCHESTRATOR)
    assert_clean(run([str(program / "main.py")], cwd=cwd), SHOWN + "\n", cwd)


def test_from_the_command_line(cwd: Path, modules: dict[str, str]) -> None:
    assert_clean(run(["-c", ORCHESTRATOR], cwd=cwd, env=modules), SHOWN + "\n", cwd)


def test_from_standard_input(cwd: Path, modules: dict[str, str]) -> None:
    assert_clean(run(["-"], cwd=cwd, env=modules, source=ORCHESTRATOR), SHOWN + "\n", cwd)


def test_as_a_module(tmp_path: Path, cwd: Path, modules: dict[str, str]) -> None:
    (tmp_path / "modules" / "orchestrating.py").write_text(ORCHESTRATOR)
    assert_clean(run(["-m", "orchestrating"], cwd=cwd, env=modules), SHOWN + "\n", cwd)


def test_from_a_notebook(cwd: Path, modules: dict[str, str]) -> None:
    cells = [ORCHESTRATOR.replace("asyncio.run(main())", ""), "await main()"]
    assert notebook(cells, cwd, modules) == [[], [["stdout", SHOWN + "\n"]]]


def test_beside_the_module_without_writing_byte_code(cwd: Path) -> None:
    (cwd / "measuring.py").write_text(MODULE)
    (cwd / "main.py").write_text(ORCHESTRATOR)
    ended = run(["main.py"], cwd=cwd, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert ended == (0, SHOWN + "\n", "")
    assert sorted(path.name for path in cwd.iterdir()) == ["main.py", "measuring.py"]


# ---- stricter interpreters -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (["-W", "error"], {}),
        ([], {"PYTHONWARNINGS": "error"}),
        (["-X", "faulthandler"], {}),
        ([], {"PYTHONDEVMODE": "1"}),
        (["-X", "dev", "-W", "error"], {}),
        (["-bb", "-O"], {}),
        (["-u"], {"PYTHONHASHSEED": "1"}),
    ],
    ids=lambda value: "_".join(value) or "no" if isinstance(value, list) else "",
)
def test_strictly(
    cwd: Path, modules: dict[str, str], flags: list[str], env: dict[str, str]
) -> None:
    # In development mode asyncio also tells of what takes longer than 0.1 s: on a busy machine,
    # loading numpy's and our libraries does.
    patient = "async def main():\n    asyncio.get_running_loop().slow_callback_duration = 60\n"
    program = ORCHESTRATOR.replace("async def main():\n", patient)
    ended = run([*flags, "-c", program], cwd=cwd, env={**modules, **env})
    assert_clean(ended, SHOWN + "\n", cwd)


# ---- what scripts define -------------------------------------------------------------------------


SCRIPT = """
import numpy as np
from theus import TheusEngine, process

class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __eq__(self, other):
        return type(other) is Point and (self.x, self.y) == (other.x, other.y)
    def mirrored(self):
        return Point(self.y, self.x)

class Odd(Exception):
    pass

class Name(str):
    pass

SCALE = 3

def helper(n):
    return n * SCALE

def scaled(n):
    return helper(n)

def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)

def adder(n):
    def add(m):
        return m + n
    return add

@process(parallel=True)
def total(ctx, scale=1.0):
    return float(ctx.heavy["x"].sum()) * scale

def refuse(n):
    raise Odd(f"{n} is odd")

engine = TheusEngine(workers=2)
engine.heavy.put("x", np.ones(10))
print(engine.run(lambda a, b: a * b, 6, 7))
print(list(engine.map(lambda n: n * n, range(5))))
print(engine.run(adder(5), 2), engine.run(scaled, 2), engine.run(factorial, 10))
SCALE = 4
print(engine.run(scaled, 2))
mirrored = engine.run(Point.mirrored, Point(1, 2))
print(type(mirrored) is Point, mirrored == Point(2, 1))
print(engine.run(Point, 3, 4) == Point(3, 4))
print(engine.run("total", scale=2.0))
print(engine.run(dict, **{Name("a"): 1}))
try:
    engine.run(refuse, 3)
except Odd as odd:
    print("caught", odd)

@process(parallel=True)
def total(ctx):
    return "the newest definition"

print(engine.run("total"))
"""
SCRIPT_SHOWN = """42
[0, 1, 4, 9, 16]
7 6 3628800
8
True True
True
20.0
{'a': 1}
caught 3 is odd
the newest definition
"""


def test_what_a_script_defines(tmp_path: Path, cwd: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert_clean(run([str(script)], cwd=cwd), SCRIPT_SHOWN, cwd)


def test_what_is_defined_on_standard_input(cwd: Path) -> None:
    assert_clean(run(["-"], cwd=cwd, source=SCRIPT), SCRIPT_SHOWN, cwd)


# ---- notebooks -----------------------------------------------------------------------------------


def notebook(
    cells: list[str], cwd: Path, env: dict[str, str] | None = None
) -> list[list[list[str]]]:
    """What each cell showed, when the kernel ended well."""
    sources = json.dumps([textwrap.dedent(cell).strip() for cell in cells])
    runner = Path(__file__).with_name("run_notebook.py")
    # Jupyter's debugger has something to say about every start, on standard error.
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", **(env or {})}
    ended = run([str(runner)], cwd=cwd, env=quiet, source=sources)
    assert ended.err == ""
    assert ended.code == 0
    assert list(cwd.iterdir()) == []
    shown: list[list[list[str]]] = json.loads(ended.out.splitlines()[-1])
    return shown


def test_a_notebook(cwd: Path) -> None:
    shown = notebook(
        [
            """
            import numpy as np
            from theus import TheusEngine, process
            engine = TheusEngine(workers=2)
            engine.heavy.put("x", np.arange(5.0))
            """,
            """
            @process(parallel=True)
            def summary(ctx):
                return "first", float(ctx.heavy["x"].sum())
            await engine.execute(summary)
            """,
            "engine.run(print, 'from a worker')\nengine.run(summary)",
            """
            class Pair:
                def __init__(self, a, b):
                    self.a, self.b = a, b
            def swap(pair):
                return Pair(pair.b, pair.a)
            swapped = engine.run(swap, Pair(1, 2))
            type(swapped) is Pair, swapped.a
            """,
            """
            @process(parallel=True)
            def summary(ctx):
                return "second", float(ctx.heavy["x"].mean())
            await engine.execute(summary), await engine.execute("summary")
            """,
            """
            with engine.heavy.edit("x") as x:
                x += 10
            engine.run("summary"), list(engine.map(lambda n: -n, range(3)))
            """,
            "[result async for result in engine.map(lambda n: n + 1, range(3))]",
            "engine.run(lambda: 1 / 0)",
        ],
        cwd,
    )
    # Jupyter reads what processes print on a thread of its own, so a later cell may have it.
    prints = [output for cell in shown for output in cell if output[0] == "stdout"]
    assert prints == [["stdout", "from a worker\n"]]
    shown = [[output for output in cell if output not in prints] for cell in shown]
    assert shown[0][0][0] == "result"
    assert "ShmArray([0., 1., 2., 3., 4.])" in shown[0][0][1]
    assert shown[1] == [["result", "('first', 10.0)"]]
    assert shown[2] == [["result", "('first', 10.0)"]]
    assert shown[3] == [["result", "(True, 2)"]]
    assert shown[4] == [["result", "(('second', 2.0), ('second', 2.0))"]]
    assert shown[5] == [["result", "(('second', 12.0), [0, -1, -2])"]]
    assert shown[6] == [["result", "[1, 2, 3]"]]
    assert shown[7] == [["error", "ZeroDivisionError: division by zero"]]


# ---- ends ----------------------------------------------------------------------------------------

OPEN = """
import atexit, os, sys, threading, time, weakref
import numpy as np
from theus import TheusEngine
engine = TheusEngine(workers=2)
array = engine.heavy.alloc("x", 100_000)
array[:] = 1.0
array.publish()
"""


@pytest.mark.parametrize(
    ("rest", "out"),
    [
        ("view = engine.heavy['x'][::2]; plain = np.asarray(view); state = engine.state", ""),
        ("building = engine.heavy.alloc('y', 10); building[:] = 1", ""),
        ("cycle = [engine, array]; cycle.append(cycle); del engine, array", ""),
        ("result = engine.run(np.ones, 300_000); part = result[5:]", ""),
        ("engine.submit(time.sleep, 1000)", ""),
        ("[engine.submit(time.sleep, 1000) for _ in range(50)]", ""),
        ("results = engine.map(time.sleep, [0, 1000, 1000]); print(next(results))", "None\n"),
        (
            "threading.Thread(target=engine.run, args=(time.sleep, 1000), daemon=True).start()\n"
            "while not engine.stats()['tasks']['running']: pass",
            "",
        ),
        ("atexit.register(lambda: print(engine.run(pow, 2, 3)))", "8\n"),
        ("atexit.register(lambda: print(engine.heavy['x'].sum()))", "100000.0\n"),
        ("engine.close(); print(array.sum())", "100000.0\n"),
        ("engine.close(); engine.close(); engine.shutdown()", ""),
        ("atexit.register(engine.close)", ""),
        ("other = TheusEngine(workers=1); print(other.run(pow, 3, 2))", "9\n"),
    ],
    ids=lambda value: value.split(";")[0].split("(")[0].strip() or "no output",
)
def test_an_engine_that_is_still_open_at_the_end(cwd: Path, rest: str, out: str) -> None:
    ended = run_text(OPEN + rest, "-X", "dev", cwd=cwd)
    assert_clean(ended, out, cwd)


def test_a_view_outlives_the_exit_hooks(cwd: Path) -> None:
    """A hook that was registered before theus came runs after theus' own."""
    program = (
        "import atexit\n"
        "kept = []\n"
        "atexit.register(lambda: print(kept[0].sum(), kept[1].sum()))\n"
        f"{OPEN}\n"
        "kept += [engine.heavy['x'], array]\n"
    )
    assert_clean(run_text(program, cwd=cwd), "100000.0 100000.0\n", cwd)


@pytest.mark.parametrize(
    ("rest", "code", "err"),
    [
        ("sys.exit(3)", 3, ""),
        ("engine.submit(time.sleep, 1000); os._exit(4)", 4, ""),
        ("engine.submit(time.sleep, 1000); raise SystemExit('bye')", 1, "bye\n"),
    ],
)
def test_the_exit_status_is_the_programs_own(cwd: Path, rest: str, code: int, err: str) -> None:
    ended = run_text(OPEN + rest, cwd=cwd)
    assert ended == (code, "", err)


def test_an_exception_ends_the_program_as_usual(cwd: Path) -> None:
    ended = run_text(OPEN + "engine.submit(time.sleep, 1000)\nraise LookupError('mine')", cwd=cwd)
    assert ended.code == 1
    assert ended.err.startswith("Traceback (most recent call last):")
    assert ended.err.endswith("LookupError: mine\n")
    assert ended.err.count("Traceback") == 1


def test_an_exception_in_a_with_block_ends_what_runs(cwd: Path) -> None:
    program = """
        import time
        from theus import TheusEngine
        with TheusEngine(workers=1) as engine:
            engine.submit(time.sleep, 1000)
            raise LookupError("mine")
    """
    ended = run_text(program, cwd=cwd)
    assert ended.code == 1
    assert ended.err.endswith("LookupError: mine\n")


def test_a_pipe_that_nobody_reads_any_more(cwd: Path) -> None:
    """Workers do not keep a program's standard output open after its end."""
    with started(["-c", OPEN + "print('ready', flush=True)"], cwd=cwd) as program:
        assert program.line() == "ready"
        ended = program.end()
    assert ended == (0, "", "")
