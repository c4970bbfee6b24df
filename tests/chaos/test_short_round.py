"""A short round of `make chaos`: until every cell of its table has been hit once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# It ends as soon as it can; this is for a machine that is very busy, or a hang.
DEADLINE = 1200


def test_nothing_is_lost_wrong_or_left() -> None:
    ended = subprocess.run(
        [sys.executable, str(HERE), "--hits", "1", "--deadline", str(DEADLINE // 2)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "python")},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
