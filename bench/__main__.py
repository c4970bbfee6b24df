"""All figures beside their peers, in one run: ``python bench [SET…] [--peers NAME…]``.

The sets are calls, heavy, jobs, start, idle, growth and stages. Prints a table for each question,
with the goal met or missed, and writes all numbers to a file, from which report.py makes
docs/benchmarks.md.
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

from contest import Figure, contest, raw, taking_part
from figures import Goal, Question, sets
from peers import entries

SCALE = {"µs": 1e6, "ms": 1e3}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help=", ".join(sets()))
    parser.add_argument("--peers", nargs="+", default=(), help="by name; default: all installed")
    parser.add_argument("--rounds", type=int, help="fewer, to see that everything runs")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    options = parser.parse_args()
    unknown = set(options.sets) - set(sets())
    if unknown:
        parser.error(f"there is no set {', '.join(sorted(unknown))}; there are {', '.join(sets())}")
    chosen = taking_part(entries(["theus", *options.peers] if options.peers else ()))
    answered: list[dict[str, Any]] = []
    failures: list[str] = []
    for name in options.sets or sets():
        asked = sets()[name]
        rounds = options.rounds or asked.rounds
        figures = contest(name, chosen, rounds=rounds, told=failures.append)
        for question in asked.questions:
            of_question = figures.get(question.name, {})
            show(question, of_question)
            answered.append({"set": name, **as_json(question, of_question)})
    for failure in failures:
        print(failure, file=sys.stderr)
    if options.json:
        facts = {"of": surroundings(chosen), "questions": answered}
        options.json.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return 1 if failures else 0


def show(question: Question, figures: dict[str, Figure]) -> None:
    """One table."""
    print(f"\n{question.name} ({question.unit})", flush=True)
    print(f"{'':44}{'median':>12}{'middle half':>25}{'CPU':>12}")
    rate = question.unit == "1/s"
    for figure in sorted(figures.values(), key=lambda f: f.median):
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
    for goal in question.goals:
        reached = goal.reached(figures)
        if reached is not None:
            print(f"  {said_of(goal, question.unit, *reached)}")


def said_of(goal: Goal, unit: str, value: float, met: bool) -> str:
    verdict = "met" if met else "missed"
    if goal.other is None:
        scale = SCALE[unit]
        limit = f"at most {goal.limit * scale:g} {unit}"
        return f"{goal.one}: {value * scale:.2f} {unit} (goal: {limit}, {verdict})"
    bound = "at least" if goal.at_least else "at most"
    return f"{goal.one} / {goal.other}: {value:.2f} (goal: {bound} {goal.limit:g}, {verdict})"


def as_json(question: Question, figures: dict[str, Figure]) -> dict[str, Any]:
    return {
        "name": question.name,
        "unit": question.unit,
        "note": question.note,
        "figures": raw(figures),
        "goals": [
            {**goal.__dict__, "value": reached[0], "met": reached[1]}
            for goal in question.goals
            if (reached := goal.reached(figures)) is not None
        ],
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
        "peers": {entry.name: entry.link for entry in chosen},
    }


if __name__ == "__main__":
    sys.exit(main())
