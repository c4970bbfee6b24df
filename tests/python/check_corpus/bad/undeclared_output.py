# runtime: ContractViolationError
"""Another name than the contract has."""

from theus import TheusEngine, process


@process(outputs=["domain.total"])
def add(ctx):
    ctx.domain.totals = 5  # expect: TH012


with TheusEngine({"domain": {"total": 0}}, workers=1) as engine:
    engine.run(add)
