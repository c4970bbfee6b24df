# runtime: none
# after: https://github.com/agronholm/pythonfutures/issues/48
"""A number that every worker counts for itself."""

from theus import TheusEngine, process

done = 0


@process(parallel=True)
def step(ctx, n):
    global done
    done += 1  # expect: TH003
    return n


with TheusEngine(workers=1) as engine:
    list(engine.map(step, range(5)))
assert done == 0
