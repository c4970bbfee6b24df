"""Arguments can be read through ctx.domain, whatever the inputs name."""

from theus import TheusEngine, process


@process(inputs=["domain.rate", "scale"], parallel=True)
def price(ctx, amount):
    return ctx.domain.rate * ctx.domain.amount * ctx.domain.scale * ctx.domain.discount


with TheusEngine({"domain": {"rate": 2.0}}, workers=1) as engine:
    print(engine.options().run(price, amount=3, scale=1, discount=0.5))
