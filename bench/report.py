"""docs/benchmarks.md, from the numbers of one run: ``report.py NUMBERS.json DIRECTORY``.

Nothing in it is written by hand: a missed goal is in the table like any other. The pictures need
matplotlib.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

SCALE = {"µs": 1e6, "ms": 1e3}


def main() -> int:
    numbers, directory = Path(sys.argv[1]), Path(sys.argv[2])
    facts = json.loads(numbers.read_text())
    pictures = directory / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    text = "\n".join(page(facts, pictures))
    (directory / "benchmarks.md").write_text(text)
    return 0


def page(facts: dict[str, Any], pictures: Path) -> list[str]:
    of = facts["of"]
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench-peers` (`bench/report.py`) from one run; no number here is typed by",
        "hand. In each round every entrant has a turn, in random order. The median over rounds is",
        "shown, with the middle half of them in brackets; CPU is what all processes together used",
        "for one piece of work, counted in hundredths of a second for a whole turn. A goal is the",
        "median of the ratios within rounds. What stands in parentheses is no tool but the work",
        "itself, done by the shortest way.",
        "",
        f"Commit {of['commit'][:12]}, {of['date']}, Linux {of['kernel']}, CPython {of['python']}, "
        f"{of['cores']} cores.",
        "",
        "| goal | is | wanted | |",
        "|---|---|---|---|",
        *(row for question in facts["questions"] for row in goal_row(question)),
        "",
    ]
    for question in facts["questions"]:
        lines += section(question, pictures)
    lines += ["## Peers", "", "Each does what its documentation shows:", ""]
    lines += [f"- {name}: {link}" for name, link in of["peers"].items()]
    return [*lines, ""]


def goal_row(question: dict[str, Any]) -> list[str]:
    goal, reached = question["goal"], question["reached"]
    if goal is None or reached is None:
        return []
    bound = "≥" if goal["at_least"] else "≤"
    met = "met" if reached["met"] else "**missed**"
    what = f"{question['name']}: {goal['one']} / {goal['other']}"
    return [f"| {what} | {reached['ratio']:.2f} | {bound} {goal['limit']:g} | {met} |"]


def section(question: dict[str, Any], pictures: Path) -> list[str]:
    figures = sorted(question["figures"], key=lambda f: statistics.median(f["seconds"]))
    unit = question["unit"]
    name = re.sub(r"\W+", "-", question["name"]).strip("-")
    lines = [f"## {question['name'][0].upper()}{question['name'][1:]}", ""]
    if draw(question, figures, pictures / f"{name}.png"):
        lines += [f"![{question['name']}](benchmarks/{name}.png)", ""]
    lines += [f"| | {unit} | middle half | CPU |", "|---|---:|---:|---:|"]
    for figure in figures:
        low, median, high = quartiles(figure["seconds"])
        cpu = statistics.fmean(figure["cpu"])
        if unit == "1/s":
            shown = f"{1 / median:,.0f} | {1 / high:,.0f} to {1 / low:,.0f} | {cpu * 1e6:.1f} µs"
        else:
            scale = SCALE[unit]
            shown = f"{median * scale:.2f} | {low * scale:.2f} to {high * scale:.2f} | "
            shown += f"{cpu * scale:.2f} {unit}"
        lines.append(f"| {figure['entrant']} | {shown} |")
    return [*lines, "", *([question["note"], ""] if question["note"] else [])]


def quartiles(seconds: list[float]) -> tuple[float, float, float]:
    if len(seconds) < 3:
        return min(seconds), statistics.median(seconds), max(seconds)
    low, median, high = statistics.quantiles(seconds, n=4)
    return low, median, high


def draw(question: dict[str, Any], figures: list[dict[str, Any]], path: Path) -> bool:
    """Bars, the fastest on top; False where there is no matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    rate = question["unit"] == "1/s"
    scale = 1 if rate else SCALE[question["unit"]]
    values = [statistics.median(f["seconds"]) for f in figures]
    shown = [1 / v if rate else v * scale for v in values]
    names = [f["entrant"] for f in figures]
    colours = ["tab:blue" if n.startswith("theus") else "lightgrey" for n in names]
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(names) + 1))
    axes.barh(names, shown, color=colours)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"{question['unit']}, logarithmic")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return True


if __name__ == "__main__":
    sys.exit(main())
