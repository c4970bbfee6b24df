# runtime: ValueError
"""What put gives back is what everybody reads."""

import numpy as np

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    weights = engine.heavy.put("weights", np.ones(4))
    weights *= 0.5  # expect: TH008
