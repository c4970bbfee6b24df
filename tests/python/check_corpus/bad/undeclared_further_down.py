# runtime: ContractViolationError
"""An input names one setting of a model, and the process reads another one."""

from theus import TheusEngine, process


@process(inputs=["domain.model.rate"], parallel=True)
def step(ctx):
    model = ctx.domain.model
    if "rate" not in model.to_dict():
        return 0.0
    return model.rate * ctx.domain["model"]["steps"]  # expect: TH013


with TheusEngine({"domain": {"model": {"rate": 0.5, "steps": 3}}}, workers=1) as engine:
    engine.run(step)
