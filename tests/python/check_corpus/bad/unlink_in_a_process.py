# runtime: ContractViolationError
"""A worker that cleans up after itself."""

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def use(ctx):
    data = ctx.heavy["data"]
    total = float(data.sum())
    data.shm.unlink()  # expect: TH010
    return total


with TheusEngine(workers=1) as engine:
    engine.heavy.put("data", np.ones(3))
    engine.run(use)
