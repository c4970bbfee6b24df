# runtime: StatelessnessError
"""Text beyond ASCII before what is found, and two findings in one line."""

import threading

from theus import TheusEngine, process

größe, schloss = 2, threading.Lock()


@process(parallel=True)
def messen(ctx):
    ctx.domain.größe = ("äöü", größe, schloss)  # expect: TH001, TH011


with TheusEngine({"domain": {"größe": 1}}, workers=1) as engine:
    engine.run(messen)
