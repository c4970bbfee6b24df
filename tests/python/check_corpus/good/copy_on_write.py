# after: https://github.com/scikit-learn/scikit-learn/issues/5956
"""A private view may be written."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def normalised(ctx, k):
    dictionary = ctx.heavy.cow("dictionary")
    dictionary[:, k] /= np.linalg.norm(dictionary[:, k])
    return dictionary[:, k]


with TheusEngine(workers=1) as engine:
    engine.heavy.put("dictionary", np.ones((8, 4)))
    print(engine.run(normalised, k=1))
