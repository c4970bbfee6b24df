"""A contract that cannot be read from the text is not judged."""

from theus import TheusEngine, process

names = ["a", "b"]


@process(outputs=[f"domain.{name}" for name in names])
def work(ctx):
    ctx.domain.a = 1
    ctx.domain.b = 2


with TheusEngine({"domain": {}}, workers=1) as engine:
    engine.run(work)
    print(engine.state.to_dict())
