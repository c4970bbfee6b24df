# runtime: ContractViolationError
# after: https://learnpython.getvisualsystem.app/learn/shared-memory
"""Cleaning up as one had to with SharedMemory."""

import numpy as np

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    buf = engine.heavy.put("buf", np.arange(10.0))
    print(buf.sum())
    buf.shm.close()  # expect: TH010
    buf.shm.unlink()  # expect: TH010
