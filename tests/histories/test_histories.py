"""A few rounds of `make histories`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CHECKER = os.environ.get("HISTORY_CHECKER")


@pytest.mark.skipif(not CHECKER, reason="make test-python builds the checker and names it")
def test_what_clients_are_told_fits_together() -> None:
    ended = subprocess.run(
        [sys.executable, str(HERE), "--rounds", "8"],
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "python")},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
