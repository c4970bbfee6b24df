"""What is live is written in place, by request."""

from theus import TheusEngine

with TheusEngine(workers=1) as engine:
    gauge = engine.heavy.alloc("gauge", 4, live=True)
    gauge.publish()
    gauge[0] = 1
    print(gauge.tolist())
