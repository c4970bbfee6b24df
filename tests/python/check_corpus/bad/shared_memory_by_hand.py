# runtime: none
# after: https://github.com/plasma-umass/scalene/issues/231
"""A block of shared memory that somebody has to remember."""

from multiprocessing.shared_memory import SharedMemory

import numpy as np

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    shm = SharedMemory(create=True, size=80)  # expect: TH009
    x = np.ndarray((10,), dtype=np.float64, buffer=shm.buf)
    x[:] = 1
    print(x.sum())
    del x
    shm.close()
    shm.unlink()
