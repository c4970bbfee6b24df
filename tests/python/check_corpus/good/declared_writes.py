"""A process of the host writes what its outputs name: a path, what is below it, and a list."""

from theus import TheusEngine, process


@process(outputs=["domain.n", "domain.inner", "domain.names"])
def work(ctx, by, key):
    ctx.domain.n += by
    ctx.domain.inner.x = ctx.domain.n
    ctx.domain.inner[key] = by
    ctx.domain.names.append("b")
    ctx.domain.names[0] = "c"
    local = {"n": 1}
    local["n"] = 2


@process(outputs=["domain"])
def everything(ctx):
    ctx.domain.fresh = {"a": 1}
    del ctx.domain.inner


base = {"domain": {"n": 1, "inner": {"x": 1}, "names": ["a"]}}
with TheusEngine(base, workers=1) as engine:
    engine.run(work, by=2, key="y")
    engine.run(everything)
    print(engine.state.to_dict())
