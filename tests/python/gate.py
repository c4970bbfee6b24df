"""Tasks that stop half-way, so that the host can look at them from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from polling import until


class Gate:
    """A FIFO at which tasks wait, and a file in which they say that they have come so far.

    See `jobs.report` and `jobs.wait_at` for the tasks' side. An open gate stays open: who comes
    late passes too.
    """

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "gate")
        self.reports = str(directory / "reports")
        os.mkfifo(self.path)
        self._writer = -1

    def arrived(self, count: int) -> list[dict[str, Any]]:
        """Wait for that many reports, and give them."""
        return until(lambda: self._read(count), f"{count} reports in {self.reports}")

    def _read(self, count: int) -> list[dict[str, Any]]:
        if not os.path.exists(self.reports):
            return []
        lines = Path(self.reports).read_text().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return whole if len(whole) >= count else []

    def open(self) -> None:
        """Let everybody pass, from now on."""
        # For reading too: opening for writing alone waits for a reader.
        self._writer = os.open(self.path, os.O_RDWR)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
