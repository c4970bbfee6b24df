# runtime: ContractViolationError
"""An argument of the same name as what is written."""

from theus import TheusEngine, process


@process(outputs=["domain.rate"])
def set_rate(ctx, rate):
    ctx.domain.rate = rate * 2  # expect: TH012


with TheusEngine({"domain": {"rate": 1.0}}, workers=1) as engine:
    engine.run(set_rate, rate=3.0)
