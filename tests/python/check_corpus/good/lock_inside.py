# after: https://github.com/ray-project/ray/issues/8516
"""Whoever needs a lock among threads of one task makes it there."""

import threading

from theus import TheusEngine, process

outside = threading.Lock()


@process(parallel=True)
def feed(ctx, items):
    lock = threading.Lock()
    with lock:
        return sorted(items)


with TheusEngine(workers=1) as engine, outside:
    print(engine.run(feed, items=[3, 1, 2]))
