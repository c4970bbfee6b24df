# after: https://github.com/MDAnalysis/mdanalysis/issues/2060
"""Distances go into an array of their own, which is published without a copy."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True, outputs=["heavy.distances"])
def distances(ctx):
    points = ctx.heavy["points"]
    out = ctx.heavy.alloc("distances", points.shape)
    np.subtract(points, points[0], out=out)
    out[0] = 0
    return out


with TheusEngine(workers=1) as engine:
    engine.heavy.put("points", np.ones((5, 3)))
    engine.run(distances)
    print(engine.heavy["distances"].sum())
