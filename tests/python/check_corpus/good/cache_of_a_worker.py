"""A table that a worker fills for itself, and reads again."""

from theus import TheusEngine, process

known = {}


@process(parallel=True)
def lookup(ctx, key):
    if key not in known:
        known[key] = len(key)
    return known[key]


with TheusEngine(workers=1) as engine:
    print(list(engine.map(lookup, ["a", "bb", "a"])))
