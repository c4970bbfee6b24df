"""What is declared further down is read, by itself, on the way and below."""

from theus import TheusEngine, process


@process(inputs=["domain.model.rate", "domain.model.layers"], outputs=["domain.model.loss"])
def step(ctx):
    model = ctx.domain.model
    first = ctx.domain.model.layers[0] + ctx.domain.model.layers.__len__()
    ctx.domain.model.loss = model.rate * first + len(model.to_dict())


@process(inputs=["domain.model"], parallel=True)
def whole(ctx):
    return ctx.domain.model.rate + ctx.domain.model["steps"]


settings = {"domain": {"model": {"rate": 0.5, "steps": 3, "layers": [1, 2]}}}
with TheusEngine(settings, workers=1) as engine:
    engine.run(step)
    engine.run(whole)
