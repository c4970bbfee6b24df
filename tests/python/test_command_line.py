"""python -m theus."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import processes
import theus
from polling import until
from theus import orphans
from theus.__main__ import main


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "theus", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version() -> None:
    assert command("--version").stdout.strip() == f"theus {theus.__version__}"


def test_includes_and_libs_lead_to_the_files() -> None:
    header = Path(command("includes").stdout.strip()) / "theus.h"
    assert "THEUS_ABI_VERSION" in header.read_text()
    library = command("libs").stdout.strip()
    assert ctypes.CDLL(library).theus_abi_version() == 1


def test_without_a_command_it_explains_itself() -> None:
    done = command()
    assert done.returncode == 2
    assert "includes" in done.stdout
    assert command("nonsense").returncode == 2


def test_reap_lists_programs_and_finds_no_orphan_of_theirs(engine: theus.TheusEngine) -> None:
    worker = engine.run(os.getpid)
    found = orphans.find()
    (mine,) = [program for program in found.programs if program.host.pid == os.getpid()]
    assert worker in {process.pid for process in mine.processes}
    assert len(mine.processes) == 3, "the zygote and two workers"
    assert worker not in {orphan.pid for orphan in found.orphans}
    text = orphans.as_text(found._replace(orphans=[]), killed=False)
    assert f"program {os.getpid()}: 2 workers" in text
    assert text.endswith("No orphan is there, and nothing else can be left behind.")


def test_reap_ends_orphans_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What survives the death of its program looks like this; nothing of theus does.
    script = (
        'python="$1"; shift; "$python" -c "import signal; signal.pause()" "$1" >/dev/null & echo $!'
    )
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "/nowhere/theus/worker/zygote.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=True,
    )
    pid = int(done.stdout)
    try:
        until(
            lambda: pid in {orphan.pid for orphan in orphans.find().orphans}, "it to be an orphan"
        )
        find = orphans.find

        def only_that_one() -> orphans.Found:
            found = find()
            return orphans.Found([], [orphan for orphan in found.orphans if orphan.pid == pid])

        monkeypatch.setattr(orphans, "find", only_that_one)
        assert main(["reap"]) == 1
        assert f"orphan {pid}: its program is gone" in capsys.readouterr().out
        assert processes.alive(pid)
        assert main(["reap", "--kill"]) == 0
        assert f"orphan {pid}: was ended" in capsys.readouterr().out
        assert not processes.alive(pid)
        assert main(["reap"]) == 0
        assert "No process of theus is there" in capsys.readouterr().out
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
