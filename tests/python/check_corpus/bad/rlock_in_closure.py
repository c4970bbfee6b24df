# runtime: StatelessnessError
# after: https://github.com/ray-project/ray/issues/30972
"""A cache with a re-entrant lock, as caching libraries have them."""

import threading

from theus import TheusEngine, process


def main(engine):
    guard = threading.RLock()
    cache = {}

    @process(parallel=True)
    def lookup(ctx, key):
        with guard:  # expect: TH001
            return cache.get(key, len(key))

    return engine.run(lookup, key="abc")


with TheusEngine(workers=1) as engine:
    print(main(engine))
