# runtime: StatelessnessError
# after: https://github.com/mdavis-xyz/lambda_multiprocessing/issues/1
"""An open file inside of what is sent."""

import os

from theus import TheusEngine, process


@process(parallel=True)
def first_line(ctx, job):
    return job["file"].readline()


with open(os.devnull, "rb") as file, TheusEngine(workers=1) as engine:
    print(engine.run(first_line, job={"name": "null", "file": file}))  # expect: TH002
