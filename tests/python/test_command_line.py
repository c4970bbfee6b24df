"""python -m theus."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import theus


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
