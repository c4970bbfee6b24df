# runtime: ValueError
# after: https://github.com/ray-project/ray/issues/9673
"""A running sum that is kept in heavy."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def increment(ctx):
    ctx.heavy["value"] += 1  # expect: TH007


with TheusEngine(workers=1) as engine:
    engine.heavy.put("value", np.ones((10, 10)))
    engine.run(increment)
