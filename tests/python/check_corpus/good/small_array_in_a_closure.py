"""Weights of a few bytes may travel with the function."""

import numpy as np

from theus import TheusEngine, process

weights = np.array([0.2, 0.3, 0.5])


@process(parallel=True)
def score(ctx, values):
    return float(weights @ values)


with TheusEngine(workers=1) as engine:
    print(engine.run(score, values=np.ones(3)))
