"""+= reads before it writes, and what may be written may be read."""

from theus import TheusEngine, process


@process(inputs=["domain.step"], outputs=["domain.n"])
def count(ctx):
    ctx.domain.n += ctx.domain.step


with TheusEngine({"domain": {"n": 1, "step": 1}}, workers=1) as engine:
    engine.run(count)
