# runtime: none
"""By place, awaited, and of a size that only runs tell."""

import asyncio

import numpy as np

from theus import TheusEngine, process


@process(parallel=True)
def spread(ctx, column):
    return float(np.ptp(column))


async def main(count):
    rng = np.random.default_rng(0)
    column = rng.standard_normal(count)
    engine = TheusEngine(workers=1)
    print(await engine.execute(spread, column))  # expect: TH006
    engine.close()


asyncio.run(main(10))
