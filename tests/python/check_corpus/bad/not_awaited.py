# runtime: none
# after: https://github.com/dano/aioprocessing/issues/24
"""A call that makes a coroutine and nothing else."""

import asyncio

from theus import TheusEngine, process


@process(parallel=True)
def tick(ctx):
    return 1


async def main():
    async with TheusEngine(workers=1) as engine:
        engine.execute(tick)  # expect: TH017


asyncio.run(main())
