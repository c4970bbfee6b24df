"""The guide to writing code: its programs run, and its messages are those of the library."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from guide_errors import PRODUCERS, Producer, Said
from pages import blocks_of, run_program
from theus import TheusEngine

GUIDE = Path(__file__).parents[2] / "docs" / "agents.md"


def programs() -> list[tuple[str, list[str], dict[str, str]]]:
    """The blocks that are programs: code, what they print, and the modules that they import."""
    found = []
    modules: dict[str, str] = {}
    for before, code, after in blocks_of(GUIDE):
        module = re.search(r"`(\w+)\.py`\.[^`]*$", before)
        if module:
            modules = {module[1]: code}
        else:
            says = re.match(r"\s*It prints (.*)\.\n", after)
            found.append((code, re.findall("`(.*?)`", says[1] if says else ""), modules))
            modules = {}
    return found


def rows() -> list[str]:
    """The messages of the table, in order."""
    table = GUIDE.read_text().partition("| it says |")[2]
    return re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)


def test_the_guide_has_what_is_tested() -> None:
    assert len(programs()) == 6
    assert len(rows()) == len(PRODUCERS)


@pytest.mark.parametrize(("code", "printed", "modules"), programs())
def test_programs_run_as_they_stand(
    code: str, printed: list[str], modules: dict[str, str], tmp_path: Path
) -> None:
    done = run_program(code, tmp_path, modules)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == printed
    assert printed, "the guide says what it prints"


@pytest.mark.parametrize(("row", "producer"), list(zip(rows(), PRODUCERS, strict=True)))
def test_messages_are_those_of_the_library(
    engine: TheusEngine, row: str, producer: Producer
) -> None:
    kind, _, text = row.partition(": ")
    pattern = ".*".join(re.escape(part.strip()) for part in text.split("…"))
    said = told(engine, producer)
    assert any(
        re.match(rf"(\w+\.)*{kind}: .*{pattern}", f"{name}: {line}", re.DOTALL)
        for names, line in said
        for name in names
    ), said
    assert engine.run(pow, 2, 3) == 8, "the next task runs"


def told(engine: TheusEngine, producer: Producer) -> list[tuple[list[str], str]]:
    """What it raised or warned of: the names of its classes, and the text."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            producer(engine)
        except Said as said:
            name, _, text = str(said).partition(": ")
            return [([name], text)]
        except Exception as error:
            return [([k.__name__ for k in type(error).__mro__], str(error))]
    return [([k.__name__ for k in w.category.__mro__], str(w.message)) for w in seen]


def test_the_command_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "theus", "agents"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == GUIDE.read_text() + "\n"
