# runtime: ValueError
"""Reading it from the engine does not make it writable."""

import numpy as np

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    engine.heavy["x"] = np.zeros(3)
    engine.heavy["x"][0] = 1  # expect: TH008
