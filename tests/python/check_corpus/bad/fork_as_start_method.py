# runtime: ForkedProcessError
# after: https://github.com/golang/go/issues/15538
"""Children of multiprocessing, forked although the Go runtime is there."""

import multiprocessing
import sys

from theus import TheusEngine


def work():
    engine.run(pow, 2, 3)


engine = TheusEngine(workers=1)
context = multiprocessing.get_context("fork")  # expect: TH016
child = context.Process(target=work)
child.start()
child.join()
engine.close()
sys.exit(child.exitcode)
