"""What workers have of the host's interpreter: its warnings, encoding and hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from programs import run

# Imported before workers start, it leaves them to be started as fresh interpreters.
WITH_THREADS = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
LOOK = """
import json, os, sys, warnings
from theus import TheusEngine

def look():
    caught = []
    for category in (DeprecationWarning, UserWarning, BytesWarning):
        try:
            warnings.warn("a warning", category)
        except category:
            caught.append(category.__name__)
    options = [option for option in sys.warnoptions if option != "default"]
    return {
        "raised": caught,
        "options": options,
        "hash": hash("a string"),
        "utf8": sys.flags.utf8_mode,
        "encoding": open(os.devnull).encoding.lower(),
        "startup": os.environ.get("PYTHONSTARTUP"),
        "user site": sys.flags.no_user_site,
    }

def beside():
    import beside_the_script
    return beside_the_script.__file__

with TheusEngine(workers=1, preload=sys.argv[1:]) as engine:
    print(json.dumps([look(), engine.run(look)]))
"""


@pytest.mark.parametrize("preload", [[], ["with_threads"]], ids=["forked", "executed"])
@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (
            ["-W", "error::DeprecationWarning", "-W", "ignore::UserWarning", "-X", "utf8=1"],
            {"LC_ALL": "C", "PYTHONHASHSEED": "7", "PYTHONSTARTUP": "/nowhere"},
        ),
        (
            ["-W", "ignore"],
            {"PYTHONWARNINGS": "error", "PYTHONUTF8": "0", "LC_ALL": "en_US.ISO-8859-1"},
        ),
    ],
    ids=["flags", "variables"],
)
def test_a_task_sees_the_hosts_interpreter(
    tmp_path: Path, preload: list[str], flags: list[str], env: dict[str, str]
) -> None:
    (tmp_path / "with_threads.py").write_text(WITH_THREADS)
    env = {**env, "PYTHONPATH": str(tmp_path)}
    ended = run([*flags, "-B", "-c", LOOK, *preload], cwd=tmp_path, env=env)
    assert ended.code == 0, ended.err
    in_host, in_worker = json.loads(ended.out)
    if "PYTHONHASHSEED" not in env:
        assert in_host.pop("hash") != in_worker.pop("hash"), "each interpreter draws its own seed"
    assert in_worker.pop("user site"), "workers find modules where the host does, not elsewhere"
    in_host.pop("user site")
    assert in_worker == in_host
    assert "Traceback" not in ended.err
