# runtime: ValueError
# after: https://github.com/ray-project/ray/issues/5592
"""Straight into the array of the state."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def patch(ctx):
    ctx.heavy["a"][0] = 5  # expect: TH007


with TheusEngine(workers=1) as engine:
    engine.heavy.put("a", np.array([1.0, 2.0]))
    engine.run(patch)
