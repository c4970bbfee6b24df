# runtime: none
# after: https://github.com/DEAP/deap/issues/452
"""An array that is sent with each individual that is evaluated."""

import itertools

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def evaluate(ctx, individual, target):
    return float(target[individual])


target = np.linspace(0, 1, 1 << 18)
with TheusEngine(workers=1) as engine:
    print(list(engine.map(evaluate, range(4), itertools.repeat(target, 4))))  # expect: TH006
