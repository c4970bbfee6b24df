# after: https://github.com/widmi/multiprocess-shared-numpy-arrays/issues/2
"""A module that can be imported, and run."""

from theus import TheusEngine, process


@process(parallel=True)
def double(ctx, n):
    return 2 * n


def run(engine, n):
    return engine.run(double, n=n)


if __name__ == "__main__":
    engine = TheusEngine(workers=1)
    print(run(engine, 4))
    engine.close()
