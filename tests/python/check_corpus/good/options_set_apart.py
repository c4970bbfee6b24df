"""With options set apart all keywords are the function's."""

from theus import TheusEngine, process


@process(parallel=True)
def fetch(ctx, url, timeout=10):
    return len(url), timeout


with TheusEngine(workers=1) as engine:
    print(engine.options(timeout=60).run(fetch, url="x", timeout=3))
