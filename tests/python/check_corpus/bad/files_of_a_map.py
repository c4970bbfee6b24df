# runtime: StatelessnessError
"""Open files as the items of a map, where their paths would do."""

import os

from theus import TheusEngine, process


@process(parallel=True)
def size(ctx, file):
    return len(file.read())


with open(os.devnull) as first, TheusEngine(workers=1) as engine:
    print(list(engine.map(size, [first])))  # expect: TH002
