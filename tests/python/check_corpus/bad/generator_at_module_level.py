# runtime: StatelessnessError
"""Numbers that are to be drawn one after the other, by everybody."""

from theus import TheusEngine, process


def numbers():
    n = 0
    while True:
        yield n
        n += 1


identities = numbers()


@process(parallel=True)
def label(ctx, text):
    return next(identities), text  # expect: TH001


with TheusEngine(workers=1) as engine:
    print(engine.run(label, text="a"))
