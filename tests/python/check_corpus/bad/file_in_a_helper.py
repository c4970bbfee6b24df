# runtime: StatelessnessError
# after: https://github.com/botcity-dev/botcity-framework-web-python/issues/28
"""The process itself looks innocent; what it calls does not."""

import os

from theus import TheusEngine, process

report = open(os.devnull, "a")


def note(text):
    print(text, file=report)  # expect: TH001


@process(parallel=True)
def find(ctx, label):
    note(label)
    return label.upper()


with TheusEngine(workers=1) as engine:
    print(engine.run(find, label="img0"))
