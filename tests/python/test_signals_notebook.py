"""The stop button of a notebook."""

from __future__ import annotations

import json
from pathlib import Path

from programs import run

OPEN = """
import signal
from theus import TheusEngine
engine = TheusEngine(workers=2)

def sleep(name):
    print("running", name, flush=True)
    while True:
        signal.pause()
"""
WAITS = {
    "run": "engine.run(sleep, 'run')",
    "future": "engine.submit(sleep, 'future').result()",
    "map": "list(engine.map(sleep, ['map'] * 4))",
    "await": "await engine.execute(sleep, 'await')",
    "async for": "[x async for x in engine.map(sleep, ['async for'] * 4)]",
}
# Of the tasks only those of a future are still there: a future outlives the wait for it.
AFTER = "[f.cancel() for f in engine._session.completions().futures()]; engine.run(pow, 2, 5)"


def test_an_interrupted_cell_leaves_a_kernel_that_works(tmp_path: Path) -> None:
    cells = [[OPEN, ""]]
    for name, wait in WAITS.items():
        cells += [[wait, f"running {name}"], [AFTER, ""]]
    runner = Path(__file__).with_name("interrupt_notebook.py")
    # Jupyter's debugger has something to say about every start, on standard error.
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    ended = run([str(runner)], cwd=tmp_path, env=quiet, source=json.dumps(cells))
    assert (ended.code, ended.err) == (0, "")
    first, *shown = json.loads(ended.out.splitlines()[-1])
    assert not first["error"]
    for name, waited, after in zip(WAITS, shown[::2], shown[1::2], strict=True):
        assert waited["error"] in ("KeyboardInterrupt", "CancelledError"), (name, waited)
        assert (after["result"], after["error"]) == ("32", ""), (name, after)
        print(f"an interrupt ended {name!r} after {waited['delay'] * 1000:.0f} ms")
    assert list(tmp_path.iterdir()) == []
