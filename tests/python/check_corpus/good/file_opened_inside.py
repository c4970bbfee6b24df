# after: https://github.com/WikiExtractor/wikiextractor/pull/341
"""The path travels, and the file is opened where it is written."""

import os

from theus import TheusEngine, process

out = os.devnull


@process(parallel=True)
def extract(ctx, page):
    with open(out, "w") as file:
        return file.write(page)


with TheusEngine(workers=1) as engine:
    print(list(engine.map(extract, ["a", "bc"])))
