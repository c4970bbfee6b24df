"""All figures beside their peers, in one run: ``python bench [SET…] [--peers NAME…]``.

The sets are calls, heavy, jobs and start. Prints a table for each question, with the goal met or
missed, and writes all numbers to a file, from which report.py makes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
# Workers of every peer import the work from here.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")])
)

import contest
from figures import Question, runs
from peers import entries, installed

SCALE = {"µs": 1e6, "ms": 1e3}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help=", ".join(runs()))
    parser.add_argument("--peers", nargs="+", default=(), help="by name; default: all installed")
    parser.add_argument("--rounds", type=int, help="fewer, to see that everything runs")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    options = parser.parse_args()
    unknown = set(options.sets) - set(runs())
    if unknown:
        parser.error(f"there is no set {', '.join(sorted(unknown))}; there are {', '.join(runs())}")
    contest.most_rounds = options.rounds or contest.most_rounds
    chosen = entries(["theus", *options.peers] if options.peers else ())
    answered: list[dict[str, Any]] = []
    for name in options.sets or runs():
        for question in runs()[name](chosen):
            show(question)
            answered.append({"set": name, **as_json(question)})
    if options.json:
        facts = {"of": surroundings(chosen), "questions": answered}
        options.json.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return 0


def show(question: Question) -> None:
    """One table."""
    print(f"\n{question.name} ({question.unit})", flush=True)
    print(f"{'':44}{'median':>12}{'middle half':>25}{'CPU':>12}")
    rate = question.unit == "1/s"
    for figure in sorted(question.figures.values(), key=lambda f: f.median):
        low, high = figure.spread
        cpu = sum(figure.cpu) / len(figure.cpu)
        if rate:
            numbers = f"{1 / figure.median:>12,.0f}{1 / high:>14,.0f} …{1 / low:>9,.0f}"
            print(f"  {figure.entrant:42}{numbers}{cpu * 1e6:>9.1f} µs")
        else:
            scale = SCALE[question.unit]
            numbers = f"{figure.median * scale:>12.2f}{low * scale:>14.2f} …{high * scale:>9.2f}"
            print(f"  {figure.entrant:42}{numbers}{cpu * scale:>12.2f}")
    if question.note:
        print(f"  {question.note}")
    reached = question.reached()
    goal = question.goal
    if reached is not None and goal is not None:
        value, met = reached
        bound = "at least" if goal.at_least else "at most"
        print(
            f"  {goal.one} / {goal.other}: {value:.2f} "
            f"(goal: {bound} {goal.limit:g}, {'met' if met else 'missed'})"
        )


def as_json(question: Question) -> dict[str, Any]:
    reached, goal = question.reached(), question.goal
    return {
        "name": question.name,
        "unit": question.unit,
        "note": question.note,
        "figures": contest.raw(question.figures),
        "goal": None if goal is None else goal.__dict__,
        "reached": None if reached is None else {"ratio": reached[0], "met": reached[1]},
    }


def surroundings(chosen: list[Any]) -> dict[str, Any]:
    """What the numbers are of."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "peers": {entry.name: entry.link for entry in chosen if installed(entry)},
    }


if __name__ == "__main__":
    sys.exit(main())
