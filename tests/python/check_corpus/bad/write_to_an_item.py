# runtime: ValueError
# after: https://github.com/scikit-learn/scikit-learn/issues/5956
"""A worker that changes what all workers read."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def update_dictionary(ctx, k):
    dictionary = ctx.heavy["dictionary"]
    dictionary[:, k] /= np.linalg.norm(dictionary[:, k])  # expect: TH007
    return k


with TheusEngine(workers=1) as engine:
    engine.heavy.put("dictionary", np.ones((8, 4)))
    engine.run(update_dictionary, k=1)
