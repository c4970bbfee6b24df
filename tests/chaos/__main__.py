"""Kill processes of theus at random while they work, and see that nothing comes of it.

    make chaos                          ten minutes
    make chaos SECONDS=60 SEED=7

Prints the seed, how often which process was killed doing what, and how the tasks ended. The exit
status is 0 when no task was lost, nothing was wrong, nothing was left, and no cell of the table is
empty. referee.py says how a bout goes, accounting.py what is counted.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import leaks
from hangs import Hang
from referee import Bout
from tally import Tally

SHM = "/dev/shm"


def main() -> int:
    options = _options()
    print(f"seed {options.seed}; the same again: make chaos SEED={options.seed}", flush=True)
    before, names = leaks.holdings(), _names()
    tally = Tally()
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        _run_bouts(options, tally, scratch)
    except (Hang, TimeoutError) as hang:
        print(f"HANG: {hang}\nseed {options.seed}; what is left is in {scratch}")
        return 1
    left = leaks.left_over(before)
    if left:
        tally.account.left.append(left)
    tally.account.left += [f"{SHM}/{name}" for name in _names() - names]
    print(tally.table())
    return _verdict(tally, options.seed, scratch)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.0, help="go on for so long at least")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--hits", type=int, default=1, help="kills that each cell is to have")
    parser.add_argument("--deadline", type=float, default=300.0, help="of the hits, in seconds")
    parser.add_argument("--hosts", type=int, default=2, help="how many are there at a time")
    parser.add_argument("--kills", type=int, default=12, help="within each host")
    return parser.parse_args()


def _run_bouts(options: argparse.Namespace, tally: Tally, scratch: Path) -> None:
    """Bouts side by side, until time is over and every cell has its hits."""
    started = time.monotonic()
    number = 0
    with ThreadPoolExecutor(options.hosts) as threads:
        while _goes_on(options, tally, time.monotonic() - started):
            bouts = [
                Bout(options.seed, number + place, tally, scratch) for place in range(options.hosts)
            ]
            number += len(bouts)
            for future in [threads.submit(bout.run, options.kills) for bout in bouts]:
                future.result()


def _goes_on(options: argparse.Namespace, tally: Tally, seconds: float) -> bool:
    if not tally.account.good:
        return False
    if seconds < options.seconds:
        return True
    return bool(tally.short_of(options.hits)) and seconds < options.seconds + options.deadline


def _names() -> set[str]:
    """Names in the place where shared memory has them; other programs have some there too."""
    names = os.listdir(SHM) if os.path.isdir(SHM) else []
    return {name for name in names if "theus" in name}


def _verdict(tally: Tally, seed: int, scratch: Path) -> int:
    account = tally.account
    for kind in ("lost", "wrong", "left"):
        for text in getattr(account, kind)[:20]:
            print(f"{kind.upper()}: {text}")
    empty = tally.short_of(1)
    for kind, phase in empty:
        print(f"EMPTY: no {kind} was killed while {phase.name.lower()}")
    if account.good and not empty:
        scratch.rmdir()
        return 0
    print(f"seed {seed}; what is left is in {scratch}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
