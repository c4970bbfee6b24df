# after: https://github.com/python/cpython/issues/116849
"""All writes come before, and the next version is a new array."""

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    shared = engine.heavy.alloc("trial", 6, dtype="int64")
    shared[:] = [1, 1, 2, 3, 5, 8]
    shared[-1] = 888
    shared.publish()
    with engine.heavy.edit("trial") as shared:
        shared[-1] = 8
    print(engine.heavy["trial"].tolist())
