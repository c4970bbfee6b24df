# runtime: ValueError
# after: https://github.com/ray-project/ray/issues/369
"""+= works in place, for arrays."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def add(ctx):
    x = ctx.heavy.get("x")
    x += np.ones(100)  # expect: TH007
    return x.sum()


with TheusEngine(workers=1) as engine:
    engine.heavy.put("x", np.zeros(100))
    engine.run(add)
