"""Histories of calls of the state: threads, coroutines, workers and attached processes, and kills.

``histories --rounds N --seed S``. Each round is a program of its own; in every other one it is
killed itself, somewhere on the way, and what it had written down is its history. The checker has to
find an order of all calls that agrees with what every client was told. It ends with a table of what
there was, and with status 1 if a history has no such order, or if something never happened.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import journal

HERE = Path(__file__).resolve().parent
CALLS = 60  # of each client
PATIENCE = 300.0  # for one program
VARIABLE = "HISTORY_CHECKER"
# What there must be of, over all rounds.
EXPECTED = (
    "read", "swap won", "swap lost", "put", "add", "worker killed it", "never answered",
    "killed worker or zygote", "killed attached process", "killed host",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", default=str(random.getrandbits(32)))
    options = parser.parse_args()
    checker = os.environ.get(VARIABLE)
    if not checker:
        parser.error(f"{VARIABLE} does not name the checker; use make histories")
    print(f"seed {options.seed}")
    seen: Counter[str] = Counter()
    events = 0
    for number in range(options.rounds):
        seed = f"{options.seed} round {number}"
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "journal"
            dies = number % 2 == 1
            error = run(seed, path, dies)
            facts = journal.read(path)
            if error is None:
                checked = subprocess.run(
                    [checker], input=journal.lines(facts), capture_output=True, check=False
                )
                error = checked.stderr.decode() or None
            if error is not None:
                kept = Path(tempfile.gettempdir()) / f"history-{options.seed}-{number}"
                kept.write_bytes(journal.lines(facts))
                print(f"round {number}: {error.strip()}; its journal is {kept}")
                return 1
            events += int(checked.stdout)
            seen += tally(facts)
            seen["killed host"] += dies
    return report(seen, events, options.rounds)


def run(seed: str, path: Path, dies: bool) -> str | None:
    """One program; gives what went wrong."""
    host = subprocess.Popen(
        [sys.executable, str(HERE / "host.py"), seed, str(CALLS)],
        env={**os.environ, journal.VARIABLE: str(path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if dies:
        wanted = Random(seed).randint(50, 600)  # lines, of 700 to 800
        deadline = time.monotonic() + PATIENCE
        while host.poll() is None and time.monotonic() < deadline:
            if path.exists() and path.read_bytes().count(b"\n\n") > wanted:
                break
            time.sleep(0.001)
        host.kill()
    try:
        output, _ = host.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        host.kill()
        host.communicate()
        return "it hangs"
    if dies and host.returncode < 0 and not output:
        return None
    return None if (host.returncode, output) == (0, "") else f"{host.returncode}: {output}"


def tally(facts: list[dict[str, object]]) -> Counter[str]:
    """What there was, by name."""
    seen: Counter[str] = Counter()
    calls = {fact["call"]: fact["operation"]["kind"] for fact in facts if "call" in fact}  # type: ignore[index]
    for fact in facts:
        if "return" not in fact:
            if "killed" in fact:
                attached = fact.get("attached")
                seen["killed attached process" if attached else "killed worker or zygote"] += 1
            continue
        kind = calls.pop(fact["return"], None)
        answer = fact.get("answer")
        if kind is None:
            continue  # a worker that was killed before its call had been written down
        if answer is None:
            seen["worker killed it"] += 1
        elif kind == "swap":
            seen["swap won" if answer.get("won") else "swap lost"] += 1  # type: ignore[attr-defined]
        else:
            seen[str(kind)] += 1
    seen["never answered"] += len(calls)
    return seen


def report(seen: Counter[str], events: int, rounds: int) -> int:
    print("| what | times |\n|---|---|")
    for name in EXPECTED:
        print(f"| {name} | {seen[name]} |")
    missing = [name for name in EXPECTED if not seen[name]]
    if missing:
        print(f"there was no {', no '.join(missing)}")
        return 1
    print(f"{rounds} histories with {events} calls in all: each is linearizable")
    return 0


if __name__ == "__main__":
    sys.exit(main())
