# runtime: ValueError
# after: https://github.com/ray-project/ray/issues/13360
"""Asking numpy to let it be written, for a library that wants that."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def as_tensor(ctx):
    data = ctx.heavy["data"]
    data.setflags(write=True)  # expect: TH007
    return data.sum()


with TheusEngine(workers=1) as engine:
    engine.heavy.put("data", np.array([1, 2, 3]))
    engine.run(as_tensor)
