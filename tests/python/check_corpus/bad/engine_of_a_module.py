# runtime: none
# after: https://github.com/widmi/multiprocess-shared-numpy-arrays/issues/2
"""A module for others to import; its workers import it, too, and open an engine there."""

from theus import TheusEngine, process

engine = TheusEngine(workers=1)  # expect: TH015


@process(parallel=True)
def double(ctx, n):
    return 2 * n


def run(n):
    return engine.run(double, n=n)
