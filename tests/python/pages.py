"""The Python blocks of a page of the documentation, and running them as a reader would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Block", "blocks_of", "run_program"]


class Block(NamedTuple):
    """A Python block: the text before it since the last one, its code, and the text behind."""

    before: str
    code: str
    after: str


def blocks_of(page: Path) -> list[Block]:
    """The Python blocks of a page, in order."""
    before, *rest = page.read_text().split("```python\n")
    found = []
    for part in rest:
        code, _, after = part.partition("```")
        found.append(Block(before, code, after))
        before = after
    return found


def run_program(
    code: str, directory: Path, modules: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code as a program in a directory, beside its modules; a warning is an error."""
    for name, text in (modules or {}).items():
        (directory / f"{name}.py").write_text(text)
    (directory / "program.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-B", "-W", "error", "program.py"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
