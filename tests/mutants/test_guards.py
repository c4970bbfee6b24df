"""The table of mutants fits the sources. Whether the tests notice is for `make mutants`."""

from __future__ import annotations

from pathlib import Path

import pytest

from guards import MUTANTS, GoTest, Mutant
from remove_guards import cut_out

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_guard_is_where_the_table_says(mutant: Mutant) -> None:
    assert mutant.cuts
    for cut in mutant.cuts:
        text = (ROOT / cut.file).read_text()
        assert cut_out(text, cut) != text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_its_test_exists(mutant: Mutant) -> None:
    if isinstance(mutant.test, GoTest):
        files = list((ROOT / mutant.test.package).glob("*_test.go"))
        wanted = f"func {mutant.test.name}("
    else:
        files = [ROOT / "tests" / "python" / mutant.test.file]
        wanted = f"def {mutant.test.name}("
    assert sum(file.read_text().count(wanted) for file in files) == 1
