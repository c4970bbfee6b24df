# runtime: none
# after: https://github.com/ungoogled-software/ungoogled-chromium/pull/3866
"""A setting that is changed where nobody looks."""

import collections

from theus import TheusEngine, process

prefixes = ["a"]
counts = collections.Counter()


@process(parallel=True)
def configure(ctx, name):
    prefixes.extend([name])  # expect: TH003
    counts[name] += 1  # expect: TH003


with TheusEngine(workers=1) as engine:
    engine.run(configure, name="b")
assert prefixes == ["a"]
