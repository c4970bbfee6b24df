"""A name that may be an array of its own: who can tell."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def work(ctx, fresh):
    if fresh:
        x = np.zeros(3)
    else:
        x = ctx.heavy["x"]
    if fresh:
        x[0] = 1
    return float(x.sum())


with TheusEngine(workers=1) as engine:
    engine.heavy.put("x", np.zeros(3))
    print(engine.run(work, fresh=True))
