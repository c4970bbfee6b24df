# runtime: none
# after: https://docs.ray.io/en/latest/ray-core/patterns/closure-capture-large-objects.html
"""Eighty megabytes that travel with the function."""

import numpy as np

from theus import TheusEngine, process

large = np.zeros(10 * 1024 * 1024)


@process(parallel=True)
def length(ctx):
    return len(large)  # expect: TH004


with TheusEngine(workers=1) as engine:
    print(engine.run(length))
