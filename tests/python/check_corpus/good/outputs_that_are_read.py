"""What a process may write it may read as well, and go through on the way."""

from theus import TheusEngine, process


@process(inputs=["scale"], outputs=["domain.n", "domain.inner.x"])
def scaled(ctx, scale):
    ctx.domain.n *= scale
    ctx.domain.inner.x = ctx.domain.n


if __name__ == "__main__":
    with TheusEngine({"domain": {"n": 2, "inner": {"x": 0, "y": 1}}}, workers=1) as engine:
        engine.run(scaled, scale=3)
        assert engine.state.domain.inner == {"x": 6, "y": 1}
