# runtime: ContractViolationError
"""Another array than the one that is named."""

import numpy as np

from theus import TheusEngine, process


@process(inputs=["heavy.a"], parallel=True)
def product(ctx):
    a = ctx.heavy["a"]
    b = ctx.heavy.get("b")  # expect: TH013
    return float(a @ b)


with TheusEngine(workers=1) as engine:
    engine.heavy.put("a", np.ones(3))
    engine.heavy.put("b", np.ones(3))
    engine.run(product)
