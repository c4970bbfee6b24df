# runtime: TypeError
"""A process that writes and says nothing about it."""

from theus import TheusEngine, process


@process
def append(ctx):
    ctx.domain.names.append("b")  # expect: TH012


with TheusEngine({"domain": {"names": ["a"]}}, workers=1) as engine:
    engine.run(append)
