# runtime: StatelessnessError
# after: https://github.com/WikiExtractor/wikiextractor/issues/246
"""A file that is opened once for all pages, and written by the workers."""

import os

from theus import TheusEngine, process

out = open(os.devnull, "w")


@process(parallel=True)
def extract(ctx, page):
    text = page.strip("[]")
    out.write(text)  # expect: TH001
    return len(text)


with TheusEngine(workers=1) as engine:
    print(list(engine.map(extract, ["[[a]]", "[[bc]]"])))
