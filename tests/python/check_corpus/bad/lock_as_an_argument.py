# runtime: StatelessnessError
"""The lock is handed over with the call."""

import threading

from theus import TheusEngine, process


@process(parallel=True)
def update(ctx, lock, n):
    with lock:
        return n + 1


with TheusEngine(workers=1) as engine:
    print(engine.run(update, lock=threading.Lock(), n=1))  # expect: TH002
