# runtime: none
# after: https://github.com/uqfoundation/pathos/issues/184
"""Results that are appended to a list of the program, one worker's list each."""

from theus import TheusEngine, process

shapes = []


@process(parallel=True)
def look(ctx, i):
    shapes.append([i, i * 2])  # expect: TH003


with TheusEngine(workers=1) as engine:
    list(engine.map(look, range(4)))
assert shapes == [], "nothing of it came back"
