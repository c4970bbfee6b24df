# runtime: TypeError
"""The data itself where its name belongs."""

import numpy as np

from theus import process

prices = np.ones((4, 2))


@process(inputs=[prices], parallel=True)  # expect: TH005
def mean(ctx):
    return prices.mean()
