"""Every Python block of the README runs as a reader would run it, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from pages import blocks_of, run_program

README = Path(__file__).parents[2] / "README.md"


class Block(NamedTuple):
    """A Python block: the module that it is the text of, its code, what it is said to print."""

    module: str | None
    code: str
    printed: str | None


def blocks() -> list[Block]:
    """The Python blocks of the page, in order."""
    found = []
    for before, code, after in blocks_of(README):
        module = re.search(r"`(\w+)\.py`:[^\n]*\n+$", before)
        printed = re.match(r"\s*It prints `(.*?)`", after)
        found.append(Block(module and module[1], code, printed and printed[1]))
    return found


PROGRAMS = [(b.code, b.printed) for b in blocks() if b.module is None]
MODULES = {b.module: b.code for b in blocks() if b.module is not None}


def test_the_readme_has_programs_to_run() -> None:
    assert len(PROGRAMS) == 4
    assert list(MODULES) == ["statistics_tasks"]
    shown = [printed for _, printed in PROGRAMS if printed]
    assert shown == ["{'spread': 999000.0}", "3", "200.0 [101.5, 101.25]"]


@pytest.mark.parametrize(("code", "printed"), PROGRAMS)
def test_it_runs_as_it_stands(code: str, printed: str | None, tmp_path: Path) -> None:
    done = run_program(code, tmp_path, MODULES)
    assert (done.returncode, done.stderr) == (0, "")
    if printed is not None:
        assert done.stdout.strip() == printed
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == sorted(["program.py", *(f"{name}.py" for name in MODULES)])
