# runtime: ContractViolationError
# after: https://github.com/zeehio/parmap/issues/17
"""A value of the state that all tasks were to write."""

from theus import TheusEngine, process


@process(parallel=True)
def step(ctx):
    ctx.domain.count = ctx.domain.count + 1  # expect: TH011


with TheusEngine({"domain": {"count": 0}}, workers=1) as engine:
    engine.run(step)
