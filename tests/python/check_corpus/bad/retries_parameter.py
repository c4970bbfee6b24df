# runtime: TypeError
"""Registering it is refused."""

from theus import TheusEngine, process


@process(parallel=True)
def send(ctx, *, retries):  # expect: TH014
    return retries


with TheusEngine(workers=1) as engine:
    engine.register(send)
