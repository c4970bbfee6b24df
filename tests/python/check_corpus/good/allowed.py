"""What is meant so can be said so."""

import numpy as np

from theus import TheusEngine, process

counts = []


@process(parallel=True)
def count(ctx, n):
    counts.append(n)  # theus: allow TH003


with TheusEngine(workers=1) as engine:
    array = engine.heavy.put("array", np.ones(3))
    engine.run(count, n=1)
    array.shm.close()  # theus: allow
