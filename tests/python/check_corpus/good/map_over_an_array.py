"""An array whose items are the tasks: nothing of it is sent as a whole."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def square(ctx, n):
    return n * n


with TheusEngine(workers=1) as engine:
    print(sum(engine.map(square, np.arange(1_000_000)[:100])))
