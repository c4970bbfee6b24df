"""A script opens its engine where it likes."""

from theus import TheusEngine, process

engine = TheusEngine(workers=1)


@process(parallel=True)
def double(ctx, n):
    return 2 * n


print(list(engine.map(double, range(3))))
engine.close()
