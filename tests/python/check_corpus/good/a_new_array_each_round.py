"""Allocated in the loop: each round has its own."""

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    for number in range(3):
        frame = engine.heavy.alloc("frame", 16)
        frame.fill(number)
        frame.publish()
    print(engine.heavy["frame"][0])
