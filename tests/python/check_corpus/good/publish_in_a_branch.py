"""Where it was published it is not written."""

import sys

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    array = engine.heavy.alloc("array", 4)
    if len(sys.argv) > 5:
        array.publish()
        sys.exit(0)
    array[:] = 1
    print(array.sum())
