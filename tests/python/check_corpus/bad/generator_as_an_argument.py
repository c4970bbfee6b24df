# runtime: StatelessnessError
"""A generator expression where a list would do."""

from theus import TheusEngine, process


@process(parallel=True)
def total(ctx, values):
    return sum(values)


with TheusEngine(workers=1) as engine:
    print(engine.run(total, (n * n for n in range(10))))  # expect: TH002
