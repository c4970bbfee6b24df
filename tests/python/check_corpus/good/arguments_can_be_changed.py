"""A list that was sent is the worker's own."""

from theus import TheusEngine, process


@process(parallel=True)
def grow(ctx, rows):
    ctx.domain.rows.append(4)
    rows.append(5)
    return len(rows)


with TheusEngine(workers=1) as engine:
    print(engine.run(grow, rows=[1, 2, 3]))
