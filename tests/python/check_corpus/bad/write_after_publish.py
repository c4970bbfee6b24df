# runtime: ValueError
# after: https://github.com/python/cpython/issues/116849
"""Two shells of the example in Python's manual, as one program: the second write comes late."""

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    shared = engine.heavy.alloc("trial", 6, dtype="int64")
    shared[:] = [1, 1, 2, 3, 5, 8]
    shared.publish()
    shared[-1] = 888  # expect: TH008
