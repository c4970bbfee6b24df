# runtime: StatelessnessError
"""A process that starts more processes, on the engine that runs it."""

from theus import TheusEngine, process

engine = TheusEngine(workers=1)


@process(parallel=True)
def leaf(ctx, n):
    return n + 1


@process(parallel=True)
def tree(ctx, n):
    return engine.run(leaf, n=n)  # expect: TH001


print(engine.run(tree, n=1))
