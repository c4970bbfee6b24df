# runtime: StatelessnessError
"""A queue of threads, where processes were to leave their results."""

import queue

from theus import TheusEngine, process

results = queue.Queue()


@process(parallel=True)
def square(ctx, n):
    results.put(n * n)  # expect: TH001


with TheusEngine(workers=1) as engine:
    list(engine.map(square, range(3)))
