"""python -m theus check as a command: exit statuses, formats, configuration, comments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import programs
from theus.__main__ import main
from theus.check import RULES, check_paths, check_text, config

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "check_corpus"
FINE = CORPUS / "good" / "logger.py"

BROKEN = """\
from theus import TheusEngine, process
counts = []
@process(parallel=True)
def count(ctx, n):
    counts.append(n)
"""


# ---- the command ---------------------------------------------------------------------------------


def command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "theus", "check", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


def test_exit_statuses(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "fine.py").write_text("import theus\n")
    done = command("broken.py", "fine.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    first, last = done.stdout.splitlines()
    assert first.startswith("broken.py:5:5: TH003 warning: parallel process 'count' changes")
    assert last == "1 finding."
    done = command("fine.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Nothing was found.\n")
    for wrong in (
        ["nowhere.py"],
        ["--select", "XX1", "fine.py"],
        ["--format", "yaml", "fine.py"],
        [],
    ):
        done = command(*wrong, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr


def test_a_directory_means_the_python_files_below_it(tmp_path: Path) -> None:
    for name in ("a.py", "deep/b.py", ".hidden/c.py", "build/d.py", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(BROKEN)
    listed = [Path(f.path).name for f in check_paths([tmp_path, tmp_path / "a.py"]).findings]
    assert listed == ["a.py", "b.py"]
    assert len(check_paths([tmp_path / "e.txt"]).findings) == 1, "it was named"


def test_it_needs_neither_numpy_nor_the_library(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    text = f"""
        import sys
        import theus
        assert not [name for name in sys.modules if name.startswith("theus.check")]
        from theus.__main__ import main
        assert main(["check", {str(tmp_path)!r}]) == 1
        assert "numpy" not in sys.modules
        with open("/proc/self/maps") as maps:
            assert "libtheus" not in maps.read()
        """
    assert "TH003" in programs.printed_by(text, tmp_path)


def test_what_cannot_be_parsed_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import theus\ndef f(:\n")
    (tmp_path / "b.py").write_bytes(b"# coding: nonsense\nimport theus\n")
    (tmp_path / "c.py").write_bytes(b"import theus\n\xff\xfe\n")
    findings = check_paths([tmp_path]).findings
    assert [(Path(f.path).name, f.code) for f in findings] == [
        ("a.py", "TH000"),
        ("b.py", "TH000"),
        ("c.py", "TH000"),
    ]
    assert findings[0].line == 2
    (deep,) = check_text("import theus\n" + "-" * 5000 + "1\n")
    assert deep.code == "TH000"
    assert check_text("def f(:") == [], "a file that does not name theus is nobody's concern"


def test_columns_are_characters() -> None:
    path = CORPUS / "bad" / "several_at_once.py"
    (lock, domain) = sorted(check_paths([path]).findings, key=lambda f: f.code)
    line = path.read_text().splitlines()[lock.line - 1]
    assert line[lock.column - 1 : lock.end_column - 1] == "schloss"
    assert line[domain.column - 1 : domain.end_column - 1].startswith("ctx.domain.größe = (")


# ---- formats -------------------------------------------------------------------------------------


def output(capsys: pytest.CaptureFixture[str], kind: str, *paths: Path) -> str:
    assert main(["check", "--format", kind, *map(str, paths)]) in (0, 1)
    return capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    path = CORPUS / "bad" / "unlink.py"
    printed = json.loads(output(capsys, "json", path))
    assert set(printed) == {"theus", "fixed", "findings"}
    first, second = printed["findings"]
    assert first["path"] == str(path)
    assert (first["code"], first["severity"]) == ("TH010", "warning")
    assert (second["code"], second["severity"]) == ("TH010", "error")
    assert second["title"] == RULES["TH010"].title
    assert second["fix"] == "remove buf.shm.unlink()"
    assert json.loads(output(capsys, "json", FINE))["findings"] == []


def test_github(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a, b.py"
    path.write_text(BROKEN)
    printed = output(capsys, "github", path)
    assert printed.count("\n") == 1
    assert printed.startswith(f"::warning file={tmp_path}/a%2C b.py,line=5,col=5,endLine=5,")
    assert "title=TH003 a parallel process writes a global::parallel process 'count'" in printed
    assert output(capsys, "github", FINE) == ""


def test_sarif(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)
    log = json.loads(output(capsys, "sarif", Path("bad/unlink.py"), CORPUS / "bad" / "close.py"))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "theus check"
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning")
    assert len(run["results"]) == 3
    uris = []
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "TH010"
        assert result["level"] in ("error", "warning")
        assert result["message"]["text"]
        (location,) = result["locations"]
        uris.append(location["physicalLocation"]["artifactLocation"]["uri"])
        region = location["physicalLocation"]["region"]
        assert 1 <= region["startLine"] <= region["endLine"]
        assert 1 <= region["startColumn"] < region["endColumn"]
    assert uris == ["bad/unlink.py"] * 2 + [(CORPUS / "bad" / "close.py").as_uri()]
    empty = json.loads(output(capsys, "sarif", FINE))
    assert empty["runs"][0]["results"] == []


# ---- configuration -------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "old").mkdir()
    for name in ("src/a.py", "old/b.py", "src/generated_c.py"):
        (tmp_path / name).write_text(BROKEN + "import numpy\narray.shm.unlink()\n")
    return tmp_path


def reported(project: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    main(["check", "--format", "json", *more, str(project / "src"), str(project / "old")])
    findings: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return [f"{Path(f['path']).stem} {f['code']}" for f in findings]


needs_toml = pytest.mark.skipif(config._toml() is None, reason="Python 3.10 without tomli")


@needs_toml
def test_a_pyproject_says_what_is_looked_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def configure(text: str) -> None:
        (project / "pyproject.toml").write_text(f"[tool.theus.check]\n{text}\n")

    everything = reported(project, capsys)
    assert len(everything) == 6
    configure("")
    assert reported(project, capsys) == everything
    configure('exclude = ["old", "src/generated_*"]')
    assert reported(project, capsys) == ["a TH003", "a TH010"]
    assert main(["check", str(project / "old" / "b.py")]) == 0, "left out even when named"
    capsys.readouterr()
    configure('exclude = ["old/", "generated_c.py"]\nignore = ["TH003"]')
    assert reported(project, capsys) == ["a TH010"]
    assert reported(project, capsys, "--ignore", "TH01") == ["a TH003"]
    configure('exclude = ["o*", "generated_c.py"]\nselect = ["TH00"]')
    assert reported(project, capsys) == ["a TH003"]
    assert reported(project, capsys, "--select", "th010,TH009") == ["a TH010"]


@needs_toml
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool.theus.check]\nselect = 'TH003'", "a list of texts"),
        ("[tool.theus.check]\nselect = ['TH999']", "no rule 'TH999'"),
        ("[tool.theus.check]\nselekt = []", "it can have select, ignore, exclude"),
        ("[tool.theus]\ncheck = 3", "not a table"),
        ("[tool.theus", "pyproject.toml"),
    ],
)
def test_a_wrong_pyproject_is_wrong_use(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    (project / "pyproject.toml").write_text(text)
    assert main(["check", str(project)]) == 2
    assert told in capsys.readouterr().err


def test_without_a_reader_of_toml_it_says_so(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "pyproject.toml").write_text('[tool.theus.check]\nignore = ["TH"]\n')
    monkeypatch.setattr(config, "_toml", lambda: None)
    assert main(["check", str(project)]) == 1
    assert "Python 3.10 needs the package tomli" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("comment", "silent"),
    [
        ("# theus: allow", True),
        ("# theus: allow TH003", True),
        ("# theus: allow TH001, TH003: counted for the log", True),
        ("#theus:allow th003", True),
        ("# noqa  # theus: allow TH003", True),
        ("# theus: allow TH001", False),
        ("# theus: allowed", False),
        ("# allow", False),
    ],
)
def test_a_comment_silences_a_line(comment: str, silent: bool) -> None:
    assert (check_text(f"{BROKEN.rstrip()}  {comment}\n") == []) is silent
    assert check_text(f"{comment}\n{BROKEN}"), "another line"
    assert check_text(BROKEN.replace("append(n)", f"append({comment!r})")), "a text is no comment"


def test_a_comment_at_the_end_of_a_statement_counts() -> None:
    assert (
        check_text(BROKEN.replace("append(n)", "append(\n        n\n    )  # theus: allow")) == []
    )


# ---- what comes with it --------------------------------------------------------------------------


def test_the_page_lists_every_rule() -> None:
    page = (ROOT / "docs" / "check.md").read_text()
    for rule in RULES.values():
        assert f"| {rule.code} | {rule.severity} | {rule.title} | {rule.instead} |" in page


def test_the_hooks_for_pre_commit_call_it() -> None:
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text()
    assert hooks.count("entry: theus check\n") == hooks.count("- id: ") == 2
