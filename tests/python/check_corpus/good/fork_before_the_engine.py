# after: https://github.com/grpc/grpc/issues/13873
"""First the children, then the engine."""

import multiprocessing
import os

from theus import TheusEngine

pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
child = multiprocessing.get_context("fork").Process(target=print)
child.start()
child.join()
with TheusEngine(workers=1) as engine:
    print(engine.run(pow, 2, 3))
