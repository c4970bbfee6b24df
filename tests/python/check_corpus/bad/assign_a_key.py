# runtime: ContractViolationError
"""A new array under a key, from within a process."""

import numpy as np

from theus import TheusEngine, process


@process
def publish(ctx):
    ctx.heavy["result"] = np.zeros(3)  # expect: TH007


with TheusEngine(workers=1) as engine:
    engine.run(publish)
