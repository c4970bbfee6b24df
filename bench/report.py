"""docs/benchmarks.md, from the numbers of a run: ``report.py NUMBERS.json… DIRECTORY``.

Nothing in it is written by hand: a missed goal is in the table like any other. The pictures need
matplotlib.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

SCALE = {"µs": 1e6, "ms": 1e3}
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def main() -> int:
    *numbers, directory = map(Path, sys.argv[1:])
    runs = [json.loads(path.read_text()) for path in numbers]
    facts = runs[0]
    for run in runs:  # the later ones of sets that were run once more, or later
        again = {question["set"] for question in run["questions"]}
        kept = [q for q in facts["questions"] if q["set"] not in again or run is facts]
        facts["questions"] = kept + (run["questions"] if run is not facts else [])
        of_run = {name: run["of"][name] for name in ("commit", "date")}
        # The numbers that an earlier report has kept say it for each set.
        of_sets = run["of"].get("sets") or dict.fromkeys(sorted(again), of_run)
        facts["of"].setdefault("sets", {}).update(of_sets)
    pictures = directory / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    text = "\n".join(page(facts, pictures))
    (directory / "benchmarks.md").write_text(text)
    raw = json.dumps(facts, indent=1, ensure_ascii=False)
    (pictures / "numbers.json").write_text(raw + "\n")
    return 0


def page(facts: dict[str, Any], pictures: Path) -> list[str]:
    of = facts["of"]
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench-peers` (`bench/report.py`) from [numbers](benchmarks/numbers.json)",
        "of the runs below; none here is typed by hand. In each round every entrant has a turn, in",
        "random order, in a process of its own, with nothing else running. The median over rounds",
        "is shown, with the middle half of them; CPU is what all processes of the turn together",
        "used for one piece of work, counted in hundredths of a second. A goal is the median of",
        "the ratios within rounds. What stands in parentheses is no tool but the work itself, done",
        "by the shortest way.",
        "",
        f"Linux {of['kernel']}, CPython {of['python']}, {of['cores']} cores.",
        "",
        *(
            f"- `python bench {name}`: commit {run['commit'][:12]}, {run['date']}."
            for name, run in of["sets"].items()
        ),
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
    notes = Path(__file__).with_name("notes.md").read_text().rstrip("\n").split("\n")
    return [*lines, "", *notes, ""]


def goal_row(question: dict[str, Any]) -> list[str]:
    return [row_of(question, goal) for goal in question["goals"]]


def row_of(question: dict[str, Any], goal: dict[str, Any]) -> str:
    bound = "≥" if goal["at_least"] else "≤"
    met = "met" if goal["met"] else "**missed**"
    value, limit = f"{goal['value']:.2f}", f"{goal['limit']:g}"
    what = f"{question['name']}: {goal['one']} / {goal['other']}"
    if goal["other"] is None:
        scale, unit = SCALE[question["unit"]], question["unit"]
        value, limit = f"{goal['value'] * scale:.2f} {unit}", f"{goal['limit'] * scale:g} {unit}"
        what = f"{question['name']}: {goal['one']}"
    return f"| {what} | {value} | {bound} {limit} | {met} |"


def section(question: dict[str, Any], pictures: Path) -> list[str]:
    curve = question["set"] == "growth"
    in_order = curve or question["set"] == "stages"
    figures = question["figures"]
    if not figures:
        return []
    if not in_order:
        figures = sorted(figures, key=lambda f: statistics.median(f["seconds"]))
    unit = question["unit"]
    name = re.sub(r"\W+", "-", question["name"]).strip("-")
    lines = [f"## {question['name'][0].upper()}{question['name'][1:]}", ""]
    if (draw_curve if curve else draw)(question, figures, pictures / f"{name}.png"):
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
    if curve:
        lines += ["", f"Slope: {slope(figures)}."]
    return [*lines, "", *([question["note"], ""] if question["note"] else [])]


def points(figures: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """A curve: how much there was, from the names, and the seconds that it took."""
    amounts = []
    for figure in figures:
        number, unit = figure["entrant"].split()[:2]
        amounts.append(float(number.replace(",", "")) * UNITS.get(unit, 1))
    return amounts, [statistics.median(figure["seconds"]) for figure in figures]


def slope(figures: list[dict[str, Any]]) -> str:
    """How the cost grows, by the least squares of the logarithms."""
    amounts, seconds = points(figures)
    if len(amounts) < 2 or min(seconds) <= 0:
        return "none to be had"
    logs = [math.log(n) for n in amounts], [math.log(s) for s in seconds]
    exponent = statistics.linear_regression(*logs).slope
    times = seconds[-1] / seconds[0]
    return f"the cost grows as n^{exponent:.2f}; the last is {times:.2f} times the first"


def quartiles(seconds: list[float]) -> tuple[float, float, float]:
    if len(seconds) < 3:
        return min(seconds), statistics.median(seconds), max(seconds)
    low, median, high = statistics.quantiles(seconds, n=4)
    return low, median, high


def draw_curve(question: dict[str, Any], figures: list[dict[str, Any]], path: Path) -> bool:
    """A line over logarithmic axes; False where there is no matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    amounts, seconds = points(figures)
    figure, axes = plt.subplots(figsize=(8, 3))
    axes.loglog(amounts, [s * SCALE[question["unit"]] for s in seconds], "o-")
    axes.set_ylim(bottom=1)
    axes.set_ylabel(question["unit"])
    axes.set_xlabel(question["name"].rpartition(" by ")[2])
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return True


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
