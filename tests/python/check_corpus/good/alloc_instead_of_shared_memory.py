# after: https://github.com/plasma-umass/scalene/issues/231
"""No name, no close, no unlink."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def total(ctx):
    return float(ctx.heavy["x"].sum())


with TheusEngine(workers=1) as engine:
    x = engine.heavy.alloc("x", (10,), dtype=np.float64)
    x[:] = 1
    x.publish()
    print(engine.run(total))
