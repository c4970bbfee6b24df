"""Runs every Go fuzz target of the project in turn, each for a while.

``fuzz.py TIME [PATTERN]``: TIME as go writes durations (``5m``), PATTERN picks targets by name.
With ``--keep`` some of the inputs that reached new code go to ``testdata/fuzz/TARGET``, where
``go test`` runs them as ordinary tests. An input that fails is put there by go itself.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_KEPT = 24  # inputs of one target
_LARGEST = 2 << 10  # bytes of one input
_PROGRESS = re.compile(r"execs: (\d+) .*total: (\d+)")


class Target(NamedTuple):
    """One function of testing.F."""

    package: Path
    name: str


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("time", help="for each target, as 30s or 5m")
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--keep", action="store_true", help="keep inputs in testdata")
    options = parser.parse_args(arguments)
    targets = [target for target in find() if re.search(options.pattern, target.name)]
    if not targets:
        print(f"no fuzz target matches {options.pattern!r}")
        return 1
    failed = [target.name for target in targets if not run(target, options.time)]
    if options.keep:
        for target in targets:
            keep(target)
    print(f"{len(targets)} fuzz targets, {options.time} each; {len(failed)} failed", *failed)
    return 1 if failed else 0


def find() -> list[Target]:
    """All targets in the checkout, by package and name."""
    found = []
    for path in ROOT.glob("[!.]*/**/*_test.go"):
        names = re.findall(r"^func (Fuzz\w+)\(\w+ \*testing\.F\)", path.read_text(), re.M)
        found += [Target(path.parent.relative_to(ROOT), name) for name in names]
    return sorted(found)


def run(target: Target, time: str) -> bool:
    """Fuzz one target; False when an input failed."""
    command = [
        *("go", "test", f"./{target.package}", "-run=^$", f"-fuzz=^{target.name}$"),
        # Minimizing counts executions, not seconds: the answers of other goroutines come late or
        # early, so that coverage differs between runs of the same input.
        *(f"-fuzztime={time}", "-fuzzminimizetime=200x", "-parallel=1"),
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    counts = _PROGRESS.findall(done.stdout)
    executions, corpus = counts[-1] if counts else ("0", "0")
    word = "FAILED" if done.returncode else "clean"
    print(f"{word:7}{target.name} in {target.package}: {executions} inputs, {corpus} interesting")
    if done.returncode:
        print(done.stdout)
    sys.stdout.flush()
    return done.returncode == 0


def keep(target: Target) -> None:
    """Copy inputs that reached new code to testdata: small ones, spread evenly over the sizes."""
    cache = subprocess.check_output(["go", "env", "GOCACHE"], text=True).strip()
    module = subprocess.check_output(["go", "list", f"./{target.package}"], cwd=ROOT, text=True)
    found = Path(cache, "fuzz", module.strip(), target.name)
    if not found.is_dir():  # no input went beyond the seeds
        return
    sizes = sorted((entry.stat().st_size, entry.name) for entry in os.scandir(found))
    small = [name for size, name in sizes if size <= _LARGEST]
    kept = ROOT / target.package / "testdata" / "fuzz" / target.name
    kept.mkdir(parents=True, exist_ok=True)
    count = min(_KEPT, len(small))
    for name in {small[i * len(small) // count] for i in range(count)}:
        (kept / name).write_bytes((found / name).read_bytes())
    print(f"{target.name}: {len(os.listdir(kept))} inputs in {kept.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
