"""Reclaiming at once what is reclaimed in the background a little later."""

from __future__ import annotations

import gc
import json
import threading

from ._core import core

__all__ = ["reap"]

COUNTS = ("segments", "bytes", "handles", "processes")

# Held by the thread that reaps, so that no two report the same. Reentrant: collecting garbage may
# run any code of the user's, this function included.
_turn = threading.RLock()


def reap(engine: int) -> dict[str, int]:
    """Collect garbage, reclaim, and count what was given back meanwhile, by whomever.

    Args:
        engine: the library's handle.
    """
    library = core()  # refuses a forked child, whose copy of the lock may be held for ever
    with _turn:
        before = _given_back(engine)
        # Finalizers hand their memory to the library, which may have it back before this returns;
        # so the count begins here, and not with the library's own reap.
        gc.collect()
        library.reap(engine)
        after = _given_back(engine)
    return {name: after[name] - before[name] for name in COUNTS}


def _given_back(engine: int) -> dict[str, int]:
    """What was given back since the engine was opened."""
    counts: dict[str, int] = json.loads(core().stats(engine))["reaper"]
    return counts
