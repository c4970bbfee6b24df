"""python -m theus check: what it finds in a corpus of programs, and that it is right about them.

The programs are in check_corpus/: each bad one marks the lines that break a rule, and says what
running it raises; each good one runs to its end. Those with a line ``# after:`` follow programs
that people have asked about in public.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import programs
from test_readme import blocks
from theus.__main__ import main
from theus.check import RULES, check_paths, check_text

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "check_corpus"
BAD = sorted((CORPUS / "bad").glob("*.py"))
GOOD = sorted((CORPUS / "good").glob("*.py"))


def expected(text: str) -> list[tuple[int, str]]:
    """Line and code of what a program of the corpus is marked with."""
    return [
        (number, code)
        for number, line in enumerate(text.splitlines(), 1)
        for marks in re.findall(r"# expect: (.+)$", line)
        for code in marks.split(", ")
    ]


def raised(text: str) -> str | None:
    """What running a program of the corpus raises."""
    name = re.findall(r"^# runtime: (\w+)$", text, re.MULTILINE)[0]
    return None if name == "none" else name


def found(path: Path) -> list[tuple[int, str]]:
    return sorted((f.line, f.code) for f in check_paths([path]).findings)


# ---- the corpus ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_program_is_found_out_and_raises_what_it_says(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    assert expected(text)
    assert found(path) == sorted(expected(text))
    error = raised(text)
    ended = programs.run(["-B", str(path)], cwd=tmp_path)
    if error is None:
        assert ended.code == 0, ended.err
    else:
        assert ended.code != 0
        assert re.search(rf"^(\w+\.)*{error}\b", ended.err, re.MULTILINE), ended.err


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_nothing_is_found_in_a_good_program_and_it_runs(path: Path, tmp_path: Path) -> None:
    assert expected(path.read_text()) == found(path) == []
    ended = programs.run(["-B", str(path)], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.err == ""


def test_the_corpus_is_what_it_is_said_to_be() -> None:
    texts = [path.read_text() for path in (*BAD, *GOOD)]
    assert len(texts) >= 60
    assert len([text for text in texts if "\n# after: https://" in f"\n{text}"]) >= len(texts) / 3
    codes = {code for text in texts for _, code in expected(text)}
    assert codes == set(RULES) - {"TH000"}


# ---- the project's own programs ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["examples", "bench", "python/theus"])
def test_nothing_is_found_in_the_projects_own_programs(name: str) -> None:
    assert list((ROOT / name).rglob("*.py"))
    assert check_paths([ROOT / name]).findings == []


def test_nothing_is_found_in_the_readme() -> None:
    assert len(blocks()) >= 4
    for block in blocks():
        assert check_text(block.code, "README.md") == []


def test_every_rule_has_a_finding_with_advice() -> None:
    for path in BAD:
        for finding in check_paths([path]).findings:
            assert finding.message.count(". ") >= 1, finding.message
            assert finding.message.endswith(".")


def test_nobody_else_s_engines_are_meant() -> None:
    text = "import theus\nengine = connect()\nengine.execute('x')\nprint(engine.execute('y')[0])\n"
    assert check_text(text) == []
    assert check_text("import numpy\nlock.shm.unlink()\n# theus\n") == []


# ---- mending -------------------------------------------------------------------------------------

MENDABLE = [p for p in BAD if any(f.fix for f in check_paths([p]).findings)]


def test_what_can_be_mended() -> None:
    mended = {f.code for p in MENDABLE for f in check_paths([p]).findings if f.fix}
    assert mended == {"TH006", "TH007", "TH009", "TH010", "TH017"}


@pytest.mark.parametrize("path", MENDABLE, ids=lambda path: path.stem)
def test_a_mended_program_is_clean_and_runs(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    copy.chmod(0o640)
    fixable = [f for f in check_paths([copy]).findings if f.fix]
    done = check_paths([copy], fix=True)
    assert done.findings == []
    assert done.fixed == len(fixable)
    assert copy.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    before = programs.run(["-B", str(path)], cwd=tmp_path)
    after = programs.run(["-B", copy.name], cwd=tmp_path)
    assert after.code == 0, after.err
    assert after.err == ""
    if before.code == 0:
        assert after.out == before.out


def test_what_cannot_be_mended_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in BAD:
        if path not in MENDABLE:
            (tmp_path / path.name).write_text(path.read_text())
    before = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert main(["check", "--fix", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith(" findings.\n")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == before


def test_mending_keeps_line_ends_and_says_how_much_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(
        b"# coding: latin-1\r\nimport theus\r\n# \xe4\r\nif 1:\r\n    array.shm.unlink()\r\n"
        b"array.shm.close(); x = 1\r\n"
    )
    assert main(["check", "--fix", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "a.py:6:1: TH010 warning" in printed, "a line that it shares stays"
    assert printed.endswith("1 finding.\n1 was mended.\n")
    assert path.read_bytes() == (
        b"# coding: latin-1\r\nimport theus\r\n# \xe4\r\nif 1:\r\n    pass\r\n"
        b"array.shm.close(); x = 1\r\n"
    )


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("is written", ("return float(np.quantile(data, q))", "data[0] = 1")),
        ("may be written", ("np.quantile(data, q)", "helper(data)")),
        ("keeps a view", ("return float(np.quantile(data, q))", "return data[1:]")),
        ("has a default", ("data: np.ndarray, q", "q, data=None")),
        ("key is taken", ("engine = ", 'other = ["data"]\nengine = ')),
        ("used elsewhere", ("engine.close()", "print(quantile)")),
    ],
)
def test_an_array_is_moved_only_where_nothing_else_changes(
    what: str, change: tuple[str, str]
) -> None:
    text = (CORPUS / "bad" / "array_argument_in_a_loop.py").read_text()
    assert change[0] in text
    (finding,) = check_text(text.replace(*change))
    assert finding.code == "TH006"
    assert finding.fix is None, what
