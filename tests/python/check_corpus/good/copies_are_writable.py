# after: https://github.com/ray-project/ray/issues/369
"""What is computed from heavy is new, and so is a copy."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def work(ctx):
    x = ctx.heavy["x"]
    x = x.copy()
    x += 1
    y = ctx.heavy["x"] * 2
    y[0] = 5
    z = ctx.heavy["x"][[0, 1]]
    z.sort()
    np.add(ctx.heavy["x"], 1, out=y)
    return float(x.sum() + y.sum() + z.sum())


with TheusEngine(workers=1) as engine:
    engine.heavy.put("x", np.zeros(10))
    print(engine.run(work))
