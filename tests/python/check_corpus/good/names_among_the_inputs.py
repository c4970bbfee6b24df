"""Names: literal, computed, and in a variable."""

import numpy as np

from theus import TheusEngine, process

NEEDED = ["heavy.grid", "domain.rate"]
columns = [f"heavy.{name}" for name in ("a", "b")]


@process(inputs=NEEDED, parallel=True)
def scaled(ctx):
    return float(ctx.heavy["grid"].sum()) * ctx.domain.rate


@process(inputs=columns, parallel=True)
def both(ctx):
    return float(ctx.heavy["a"] @ ctx.heavy["b"])


with TheusEngine({"domain": {"rate": 2.0}}, workers=1) as engine:
    for key in ("grid", "a", "b"):
        engine.heavy.put(key, np.ones(3))
    print(engine.run(scaled), engine.run(both))
