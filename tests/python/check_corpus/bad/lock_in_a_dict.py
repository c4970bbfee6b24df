# runtime: StatelessnessError
"""A lock among the settings of the program, and one that is a default."""

import threading

from theus import TheusEngine, process

settings = {"rate": 2, "lock": threading.Lock()}


@process(parallel=True)
def scale(ctx, n):
    return n * settings["rate"]  # expect: TH001


@process(parallel=True)
def shift(ctx, n, lock=threading.Lock()):  # expect: TH001
    return n + 1


with TheusEngine(workers=1) as engine:
    print(engine.run(scale, n=1))
