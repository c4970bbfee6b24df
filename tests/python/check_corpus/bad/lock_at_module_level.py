# runtime: StatelessnessError
# after: https://github.com/ray-project/ray/issues/8516
"""A lock that was to guard a list of items, used by the function that feeds it."""

from threading import Lock

from theus import TheusEngine, process

feeding = Lock()


@process(parallel=True)
def feed(ctx, items):
    with feeding:  # expect: TH001
        return sorted(items)


with TheusEngine(workers=1) as engine:
    print(engine.run(feed, items=[3, 1, 2]))
