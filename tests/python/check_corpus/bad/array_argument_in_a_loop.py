# runtime: none
"""By keyword, in a loop that leaves the array alone."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def quantile(ctx, data: np.ndarray, q):
    """Of all of it."""
    return float(np.quantile(data, q))


engine = TheusEngine(workers=1)
samples = np.random.default_rng(1).normal(size=(1000, 200))
for q in (0.1, 0.5, 0.9):
    print(round(engine.run(quantile, data=samples, q=q), 6))  # expect: TH006
engine.close()
