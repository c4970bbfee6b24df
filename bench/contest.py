"""Taking turns: several ways to do the same work, measured side by side in one run.

A machine's speed drifts, and other programs come and go. So nobody is measured for long at a time:
in each round every entrant has its turn, in an order that is drawn anew, and what counts is the
ratio within a round. A turn is a process of its own (turn.py), and nobody else's workers, threads
and daemons are there meanwhile.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import peers
from peers import Entry

TICKS = os.sysconf("SC_CLK_TCK")
TURN = Path(__file__).resolve().with_name("turn.py")
# Seconds; a tool that needs more for a turn is left out of the round.
PATIENCE = 600


@dataclass
class Figure:
    """What one entrant took.

    Attributes:
        entrant: its name.
        seconds: the median time of one piece of work in each round.
        cpu: CPU seconds of the turn's process and all below it for one piece of work, by round;
            their grain is a hundredth of a second for all calls of the turn.
    """

    entrant: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The middle half of the rounds."""
        if len(self.seconds) < 3:
            return min(self.seconds), max(self.seconds)
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return first, third


Figures = dict[str, dict[str, Figure]]  # by question, then by entrant


def contest(
    questions: str,
    entries: list[Entry],
    *,
    rounds: int,
    seed: int = 0,
    told: Callable[[str], object] = lambda _: None,
) -> Figures:
    """Let each entrant answer a set of questions, `rounds` times in turn.

    Args:
        questions: the set's name.
        entries: who takes part.
        rounds: how many turns each has.
        seed: of the order.
        told: is called with what went wrong in a turn.
    """
    figures: Figures = {}
    order = random.Random(seed)
    for _ in range(rounds):
        turns = list(entries)
        order.shuffle(turns)
        for entry in turns:
            try:
                answers = turn(questions, entry)
            except (subprocess.SubprocessError, ValueError) as failure:
                told(f"{entry.name}: {failure}")
                continue
            for question, by_entrant in answers.items():
                for name, (seconds, cpu) in by_entrant.items():
                    figure = figures.setdefault(question, {}).setdefault(name, Figure(name))
                    figure.seconds.append(seconds)
                    figure.cpu.append(cpu)
    return figures


def turn(questions: str, entry: Entry) -> dict[str, dict[str, tuple[float, float]]]:
    """One turn: (seconds, CPU seconds) by question and entrant."""
    # In a directory of its own: the Rust Theus leaves a file where it is run.
    with tempfile.TemporaryDirectory() as directory:
        answers = Path(directory) / "answers.json"
        command = [entry.python or sys.executable, str(TURN), questions, entry.name, str(answers)]
        done = subprocess.run(
            command,
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        text = answers.read_text() if answers.exists() else ""
    if done.returncode or not text:
        raise ValueError(
            done.stderr.decode(errors="replace")[-2000:] or f"status {done.returncode}"
        )
    answered: dict[str, dict[str, tuple[float, float]]] = json.loads(text)
    return answered


def ratio(one: Figure, other: Figure) -> float:
    """The median over rounds of the one's time by the other's."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=False))


def cpu_seconds() -> float:
    """What this process and all that descend from it have used so far, the dead ones included."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(name)] = int(fields[1])
        ticks[int(name)] = sum(map(int, fields[11:15]))
    own = os.getpid()
    return sum(ticks[pid] for pid in ticks if _descends(pid, own, parents)) / TICKS


def _descends(pid: int, from_: int, parents: Mapping[int, int]) -> bool:
    while pid:
        if pid == from_:
            return True
        pid = parents.get(pid, 0)
    return False


def raw(figures: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """All numbers, as JSON has them."""
    return [asdict(figure) for figure in figures.values()]


def taking_part(entries: list[Entry]) -> list[Entry]:
    """Those that are installed; a word about each other."""
    found = [entry for entry in entries if peers.installed(entry)]
    for entry in entries:
        if entry not in found:
            print(f"({entry.name} is not installed, and left out)")
    return found
