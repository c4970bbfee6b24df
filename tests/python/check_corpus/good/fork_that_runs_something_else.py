"""A child that has nothing to do with theus, and children that are spawned."""

import multiprocessing
import os

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    print(engine.run(pow, 2, 3))
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    context = multiprocessing.get_context("spawn")
    print(context.get_start_method())
