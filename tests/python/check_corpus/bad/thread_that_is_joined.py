# runtime: StatelessnessError
"""A thread of the program that a process waits for."""

import threading

from theus import TheusEngine, process

loader = threading.Thread(target=print)


@process(parallel=True)
def wait(ctx):
    loader.join()  # expect: TH001


with TheusEngine(workers=1) as engine:
    engine.run(wait)
