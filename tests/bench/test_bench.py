"""The benchmarks run, and their report says what they printed; how fast, nobody asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_a_round_of_calls(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    peer = "ProcessPoolExecutor (spawn)"
    options = ["--rounds", "1", "--peers", peer, "--json", str(numbers)]
    ran = run(str(BENCH), "calls", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    questions = json.loads(numbers.read_text())["questions"]
    assert len(questions) == 4
    for question in questions:
        assert question["name"] in ran.stdout
        assert {"theus", peer} <= {figure["entrant"] for figure in question["figures"]}
        assert all(seconds > 0 for f in question["figures"] for seconds in f["seconds"])

    made = run(str(BENCH / "report.py"), str(numbers), str(tmp_path))
    assert (made.returncode, made.stderr) == (0, "")
    page = (tmp_path / "benchmarks.md").read_text()
    for question in questions:
        for goal in question["goals"]:
            verdict = "met" if goal["met"] else "**missed**"
            assert f"| {goal['value']:.2f} |" in page
            assert verdict in page


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=600, check=False
    )
