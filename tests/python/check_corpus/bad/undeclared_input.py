# runtime: ContractViolationError
"""A read beside the contract, in a worker."""

from theus import TheusEngine, process


@process(inputs=["domain.rate"], parallel=True)
def price(ctx):
    return ctx.domain.rate * ctx.domain.amount  # expect: TH013


with TheusEngine({"domain": {"rate": 2.0, "amount": 3}}, workers=1) as engine:
    engine.run(price)
