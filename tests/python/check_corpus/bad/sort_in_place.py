# runtime: ValueError
"""A method that works in place, on a slice."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def median(ctx):
    part = ctx.heavy.samples[10:20]
    part.sort()  # expect: TH007
    return part[5]


with TheusEngine(workers=1) as engine:
    engine.heavy.put("samples", np.arange(100.0)[::-1])
    engine.run(median)
