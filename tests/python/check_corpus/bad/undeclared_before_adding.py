# runtime: ContractViolationError
"""+= reads before it writes."""

from theus import TheusEngine, process


@process(inputs=["domain.step"], outputs=["domain.n"])
def count(ctx):
    ctx.domain.n += ctx.domain.step  # expect: TH013


with TheusEngine({"domain": {"n": 1, "step": 1}}, workers=1) as engine:
    engine.run(count)
