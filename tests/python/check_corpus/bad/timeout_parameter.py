# runtime: TypeError
"""A parameter that never gets a value."""

from theus import TheusEngine, process


@process(parallel=True)
def fetch(ctx, url, timeout=10):  # expect: TH014
    return len(url), timeout


with TheusEngine(workers=1) as engine:
    print(engine.run(fetch, url="x", timeout=3))
