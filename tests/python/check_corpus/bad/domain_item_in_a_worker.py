# runtime: ContractViolationError
"""By item, and through another name."""

from theus import TheusEngine, process


@process(parallel=True, outputs=["domain.count"])
def step(ctx):
    domain = ctx.domain
    domain["count"] = 5  # expect: TH011
    return 5


with TheusEngine({"domain": {"count": 0}}, workers=1) as engine:
    engine.run(step)
