# runtime: ValueError
"""A swap publishes, too."""

import numpy as np

from theus import TheusEngine


def main():
    engine = TheusEngine(workers=1)
    grid = engine.heavy.alloc("grid", shape=(10, 10))
    grid[:] = 1
    engine.compare_and_swap(engine.state.version, heavy={"grid": grid})
    np.multiply(grid, 2, out=grid)  # expect: TH008


main()
