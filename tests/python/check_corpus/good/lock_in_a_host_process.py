"""A process that is not parallel may use the locks of its own program."""

import threading

from theus import TheusEngine, process

lock = threading.Lock()


@process
def here(ctx, n):
    with lock:
        return n + 1


with TheusEngine(workers=1) as engine:
    print(engine.run(here, n=1))
