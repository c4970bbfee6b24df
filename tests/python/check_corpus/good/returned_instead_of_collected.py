# after: https://github.com/uqfoundation/pathos/issues/184
"""Results come back as results."""

from theus import TheusEngine, process

products = list(range(10))


@process(parallel=True)
def look(ctx, i):
    return [i, products[i]]


shapes = []
with TheusEngine(workers=1) as engine:
    shapes.extend(engine.map(look, range(len(products))))
print(shapes)
