# after: https://docs.ray.io/en/latest/ray-core/patterns/pass-large-arg-by-value.html
"""Published once, read by every call."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def mean_of(ctx, i):
    return ctx.heavy["data"][i::10].mean()


data = np.ones(1024 * 1024)
with TheusEngine(workers=1) as engine:
    engine.heavy.put("data", data)
    print([engine.run(mean_of, i=i) for i in range(3)])
