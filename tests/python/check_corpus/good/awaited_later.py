"""Coroutines may be gathered, made into tasks, returned and kept."""

import asyncio

from theus import TheusEngine, process


@process(parallel=True)
def tick(ctx, n):
    return {"n": n}


def start(engine, n):
    return engine.execute(tick, n=n)


async def main():
    async with TheusEngine(workers=1) as engine:
        first = engine.execute(tick, n=1)
        pending = [engine.execute(tick, n=n) for n in (2, 3)]
        task = asyncio.create_task(engine.execute(tick, n=4))
        print(await first, await asyncio.gather(*pending), await task)
        print((await start(engine, 5))["n"])
        again = engine.execute(tick, n=6)
        again = await again
        print(again["n"])


asyncio.run(main())
