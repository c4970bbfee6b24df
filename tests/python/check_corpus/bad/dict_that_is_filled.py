# runtime: none
# after: https://github.com/classner/pymp/issues/2
"""A table that the workers were to fill in."""

from theus import TheusEngine, process

table = {}


@process(parallel=True)
def fill(ctx, i):
    table[i] = i * i  # expect: TH003


with TheusEngine(workers=1) as engine:
    list(engine.map(fill, range(4)))
assert table == {}
