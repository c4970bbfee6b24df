# runtime: none
# after: https://github.com/KindsonTheGenius/advanced-python-tutorial
"""Under its module's name, with a copy of an array, and tidied up in the end."""

from multiprocessing import shared_memory

import numpy as np

from theus import TheusEngine


def main():
    engine = TheusEngine(workers=1)
    source = np.array([1, 2, 3, 4, 5])
    memory = shared_memory.SharedMemory(create=True, size=source.nbytes)  # expect: TH009
    shared = np.ndarray(source.shape, source.dtype, buffer=memory.buf)
    try:
        shared[:] = source
        print(shared.tolist())
    finally:
        memory.unlink()
    engine.close()


main()
