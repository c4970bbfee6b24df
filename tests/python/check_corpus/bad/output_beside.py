# runtime: ContractViolationError
"""A part of a tree, and its neighbour."""

from theus import TheusEngine, process


@process(outputs=["domain.inner.x"])
def move(ctx):
    ctx.domain.inner.x += 1
    ctx.domain.inner["y"] = 5  # expect: TH012


with TheusEngine({"domain": {"inner": {"x": 1, "y": 1}}}, workers=1) as engine:
    engine.run(move)
