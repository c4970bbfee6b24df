"""New random streams for a forked worker.

Workers forked from one zygote have the same memory, the state of random generators included, and
would draw the same numbers. So the global generators are seeded anew in each, from the engine's
seed and the worker's id, which is never used twice: a worker that replaces a dead one continues
with other numbers. Nothing from the kernel is mixed in: where the engine's seed was not chosen by
the user it came from the kernel already, and where it was, a pool of one worker stays repeatable.

Results that must not depend on the workers use ``ctx.rng``, which has nothing to do with this.
"""

from __future__ import annotations

import contextlib
import random
import sys


def reseed(seed: int, worker: int) -> None:
    """Seed `random`, `numpy.random` and, if it is loaded, torch."""
    import numpy as np

    streams = np.random.SeedSequence([seed, worker]).spawn(3)
    words = [stream.generate_state(4) for stream in streams]
    random.seed(int.from_bytes(words[0].tobytes(), "little"))
    np.random.seed(words[1])
    torch = sys.modules.get("torch")
    if torch is not None:
        # Versions differ in what they do for accelerators in a forked process; it must not end it.
        with contextlib.suppress(Exception):
            torch.manual_seed(int(words[2][0]) << 31 | int(words[2][1]) >> 1)
