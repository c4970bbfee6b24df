"""What runs in this process gets its arguments as they are."""

import numpy as np

from theus import TheusEngine, process


@process
def total(ctx, values):
    return float(values.sum())


values = np.ones(1_000_000)
with TheusEngine(workers=1) as engine:
    print(engine.run(total, values=values))
