"""A logger can be sent: its records reach the program."""

import logging

from theus import TheusEngine, process

log = logging.getLogger("program")


@process(parallel=True)
def work(ctx):
    log.debug("begins")
    return 1


with TheusEngine(workers=1) as engine:
    print(engine.run(work))
