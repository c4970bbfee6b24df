# runtime: ValueError
# after: https://github.com/MDAnalysis/mdanalysis/issues/2060
"""Distances that are written to where their inputs are, by numpy and by shuffling."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def distances(ctx):
    points = ctx.heavy["points"]
    np.subtract(points, points[0], out=ctx.heavy["points"])  # expect: TH007


@process(parallel=True)
def mix(ctx):
    ctx.rng.shuffle(ctx.heavy["points"])  # expect: TH007


with TheusEngine(workers=1) as engine:
    engine.heavy.put("points", np.ones((5, 3)))
    engine.run(distances)
