"""Names that are bound again inside mean what they are bound to there."""

import threading

from theus import TheusEngine, process

lock = threading.Lock()
results = []


@process(parallel=True)
def work(ctx, lock):
    results = []
    results.append(lock)
    return [lock for lock in results]


with lock, TheusEngine(workers=1) as engine:
    print(engine.run(work, lock="a word"))
