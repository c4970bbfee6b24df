# runtime: FileNotFoundError
# after: https://github.com/python/cpython/issues/104291
"""Opening the memory of an array by its name."""

from multiprocessing import shared_memory

import numpy as np

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    array = engine.heavy.put("array", np.ones(3))
    shared_memory.SharedMemory(name=array.shm.name)  # expect: TH009
