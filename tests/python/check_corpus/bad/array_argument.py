# runtime: none
# after: https://docs.ray.io/en/latest/ray-core/patterns/pass-large-arg-by-value.html
"""The same eight megabytes with every call."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def mean_of(ctx, data, i):
    return data[i::10].mean()


def main():
    data = np.ones(1024 * 1024)
    with TheusEngine(workers=1) as engine:
        return [engine.run(mean_of, data=data, i=i) for i in range(3)]  # expect: TH006


print(main())
