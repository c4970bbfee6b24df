# runtime: ValueError
"""The loop that publishes once more what it has published already."""

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    frame = engine.heavy.alloc("frame", 16)
    for number in range(3):
        frame.fill(number)  # expect: TH008
        frame.publish()
